"""The flags that every HTTP block's command shares, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import click

from blocks.core.activation import is_inherited
from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate, rate, seconds, size

from .h1 import Limits
from .server import parse_address
from .timeouts import Timeouts


class _Quantity(click.ParamType[Any]):
    """A flag's value read by one of ``core.quantities``; what is wrong is said as that function says it."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _address(text: str) -> str:
    parse_address(text)
    return text


def _listener(text: str) -> str:
    return text if is_inherited(text) else _address(text)


DURATION = _Quantity("duration", seconds)
SIZE = _Quantity("size", size)
RATE = _Quantity("rate", rate)
ADDRESS = _Quantity("host:port", _address)
LISTENER = _Quantity("host:port", _listener)


@dataclass(frozen=True, slots=True)
class Serving:
    """How a process listens: what ``serving_options`` reads from the command line. ``settings`` are all flags of the command, as given."""

    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    max_connections: int | None = None
    workers: int = 1
    access_log: str = "off"
    access_log_format: str = "json"
    admin: str | None = None
    admin_token_file: str | None = None
    ports_file: str | None = None
    tls_cert: tuple[str, ...] = ()
    tls_key: tuple[str, ...] = ()
    tls_client_ca: str | None = None
    drain: float = 10.0
    lame_duck: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)


_DEFAULTS = Timeouts()
_LIMITS = Limits()
_FILE = click.Path(exists=True, dir_okay=False)


def _flag(name: str, help: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    return name, {"help": help, **settings}


_FLAGS = [
    _flag(
        "--listen",
        "Address to listen on: HOST:PORT, unix:PATH, or fd:NAME (a socket of systemd's); may be repeated. Port 0 takes a free one.",
        type=LISTENER,
        multiple=True,
    ),
    _flag("--head-timeout", "For a whole request head.", type=DURATION, default=_DEFAULTS.head, show_default="10s"),
    _flag(
        "--body-timeout",
        "Between two reads of a request body.",
        type=DURATION,
        default=_DEFAULTS.body,
        show_default="30s",
    ),
    _flag(
        "--idle-timeout",
        "Between two requests on a connection.",
        type=DURATION,
        default=_DEFAULTS.idle,
        show_default="60s",
    ),
    _flag(
        "--send-timeout", "Without the client taking a byte.", type=DURATION, default=_DEFAULTS.send, show_default="60s"
    ),
    _flag(
        "--min-rate",
        "Least rate of a request body.",
        type=RATE,
        default=Rate(_DEFAULTS.min_rate, 1.0),
        show_default="500B/s",
    ),
    _flag("--max-connections", "Clients at a time, for each worker; more get 503.", type=click.IntRange(min=1)),
    _flag("--max-head", "Bytes of a request head.", type=SIZE, default=_LIMITS.head, show_default="32KiB"),
    _flag("--max-body", "Bytes of a request body; more get 413. No bound by default.", type=SIZE),
    _flag(
        "--workers", "Processes that share the port.", type=click.IntRange(min=1, max=256), default=1, show_default=True
    ),
    _flag("--access-log", "A file, - for standard output, or off.", default="off", show_default=True),
    _flag(
        "--access-log-format",
        "How a line looks.",
        type=click.Choice(["json", "combined"]),
        default="json",
        show_default=True,
    ),
    _flag("--admin", "Address of the admin API; off by default.", type=ADDRESS),
    _flag("--admin-token-file", "File with the admin API's bearer token; needed off loopback.", type=_FILE),
    _flag("--ports-file", "File to write the ready line to.", type=click.Path(dir_okay=False)),
    _flag("--tls-cert", "Certificate chain (PEM); may be repeated, chosen by SNI.", type=_FILE, multiple=True),
    _flag("--tls-key", "Its key (PEM).", type=_FILE, multiple=True),
    _flag("--tls-client-ca", "Ask clients for a certificate of this authority (mTLS).", type=_FILE),
    _flag(
        "--drain-timeout", "For requests under way when told to stop.", type=DURATION, default=10.0, show_default="10s"
    ),
    _flag(
        "--lame-duck",
        "Before that: answer on, but say not ready, until load balancers have noticed.",
        type=DURATION,
        default=0.0,
        show_default="0s",
    ),
]


def serving_options(default_listen: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the shared flags; it is called with them as one keyword, ``serving``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collected(**flags: Any) -> Any:
            return command(serving=_collect(flags, default_listen), **flags)

        wrapped: Callable[..., Any] = collected
        for name, settings in reversed(_FLAGS):
            wrapped = click.option(name, **settings)(wrapped)
        return wrapped

    return decorate


def _collect(flags: dict[str, Any], default_listen: str) -> Serving:
    """Take the shared flags out of ``flags``."""
    settings = dict(flags)
    certificates, keys = flags.pop("tls_cert"), flags.pop("tls_key")
    if len(certificates) != len(keys):
        raise click.UsageError(
            f"{len(certificates)} --tls-cert but {len(keys)} --tls-key: give each certificate its key, in the same order"
        )
    client_ca = flags.pop("tls_client_ca")
    if client_ca and not certificates:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    return Serving(
        listen=flags.pop("listen") or (default_listen,),
        timeouts=Timeouts(
            head=flags.pop("head_timeout"),
            body=flags.pop("body_timeout"),
            idle=flags.pop("idle_timeout"),
            send=flags.pop("send_timeout"),
            min_rate=flags.pop("min_rate").per_second,
        ),
        limits=_limits(flags.pop("max_head"), flags.pop("max_body")),
        max_connections=flags.pop("max_connections"),
        workers=flags.pop("workers"),
        access_log=flags.pop("access_log"),
        access_log_format=flags.pop("access_log_format"),
        admin=flags.pop("admin"),
        admin_token_file=flags.pop("admin_token_file"),
        ports_file=flags.pop("ports_file"),
        tls_cert=certificates,
        tls_key=keys,
        tls_client_ca=client_ca,
        drain=flags.pop("drain_timeout"),
        lame_duck=flags.pop("lame_duck"),
        settings=settings,
    )


def _limits(head: int, body: int | None) -> Limits:
    return Limits(head=head, target=min(_LIMITS.target, head), body=body)
