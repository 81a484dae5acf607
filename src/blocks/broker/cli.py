"""``blocks broker``: run a broker, or talk to one; every read has ``--json``, and long work shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size


def _quantity(parse: Callable[[Any], float]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for an option that is written like ``30s`` or ``64MiB``."""

    def convert(context: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except ConfigError as error:
            raise click.BadParameter(str(error), context, param) from error

    return convert


_duration, _size = _quantity(seconds), _quantity(size)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--listen", default="127.0.0.1:7400", show_default=True, help="HOST:PORT for clients, or fd:NAME; port 0 takes any."
)
@click.option("--data", metavar="DIR", help="Where the log is kept; :memory: keeps nothing.")
@click.option("--durability", type=click.Choice(["fsync", "interval", "memory"]), default="fsync", show_default=True)
@click.option(
    "--interval",
    callback=_duration,
    default="100ms",
    show_default=True,
    help="Between syncs, with --durability interval.",
)
@click.option("--http", metavar="HOST:PORT", help="Also listen for HTTP: publish, pull, SSE.")
@click.option("--admin", metavar="HOST:PORT", help="Health, metrics and lists over HTTP.")
@click.option("--admin-token-file", metavar="FILE", help="File with the admin API's bearer token; needed off loopback.")
@click.option("--ports-file", metavar="FILE", help="Write the line that says ready to FILE too.")
@click.option("--token-file", metavar="FILE", help="Users and tokens; needed off loopback.")
@click.option("--tls-cert", metavar="FILE", help="PEM certificate (chain).")
@click.option("--tls-key", metavar="FILE", help="PEM key, if it is not in the certificate's file.")
@click.option("--tls-client-ca", metavar="FILE", help="Clients must have a certificate of this authority.")
@click.option("--webhooks", metavar="FILE", help="TOML file of push subscriptions.")
@click.option("--segment-bytes", callback=_size, default="64MiB", show_default=True, help="Size of a log file.")
@click.option("--drain", "grace", callback=_duration, default="10s", show_default=True, help="How long SIGTERM waits.")
@click.pass_context
def broker(context: click.Context, /, **options: Any) -> None:
    """Run a message broker, or (with a command) talk to one.

    An acknowledged message is on disk. One JSON line on stdout says when the broker is ready, and where.
    """
    if context.invoked_subcommand is not None:
        return
    if options["data"] is None:
        raise click.UsageError("--data DIR says where the log is kept (:memory: for nowhere)", context)
    from .process import Settings, run

    extra = {"segment_bytes": options.pop("segment_bytes"), "interval": options.pop("interval")}
    sys.exit(run(Settings(broker=extra, **options)))


def _remote(command: Any) -> Any:
    """The options of every command that talks to a running broker."""
    for option in (
        click.option("--url", default="blocks://127.0.0.1:7400", show_default=True, envvar="BLOCKS_BROKER_URL"),
        click.option("--token", envvar="BLOCKS_BROKER_TOKEN", help="Or in the URL: blocks://TOKEN@HOST:PORT."),
        click.option("--tls-ca", metavar="FILE", help="Authority of the broker's certificate, for blocks+tls://."),
    ):
        command = option(command)
    return command


_json = click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")


def _pairs(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", context, param)
        pairs[name] = text
    return pairs


@broker.command()
@click.argument("topic")
@click.argument("payload", required=False)
@click.option("--lines", is_flag=True, help="Each line of stdin is a message.")
@click.option("--header", "headers", multiple=True, callback=_pairs, metavar="NAME=VALUE")
@click.option("--key", help="Ordering key.")
@click.option("--id", "ident", help="Message id: published twice, it is stored once.")
@click.option("--ttl", callback=_duration)
@click.option("--delay", callback=_duration)
@_remote
@_json
def publish(**options: Any) -> None:
    """Publish PAYLOAD (or stdin) to TOPIC; returns when it is acknowledged."""
    from . import verbs

    verbs.run(verbs.publish, options)


def _place(context: click.Context, param: click.Parameter, value: str) -> str | int | float:
    if value in ("earliest", "latest", "last"):
        return value
    if value.isascii() and value.isdigit():
        return int(value)
    try:
        moment = float(value.removeprefix("@"))
    except ValueError:
        moment = -1.0
    if not value.startswith("@") or not 0 <= moment < 1e12:
        raise click.BadParameter(f"{value!r} is not earliest, latest, last, an offset or @SECONDS", context, param)
    return moment


@broker.command()
@click.argument("pattern")
@click.option("--group", help="Be a member of this group and ack; without it nothing is taken away.")
@click.option(
    "--start",
    callback=_place,
    default="latest",
    show_default=True,
    help="earliest, latest, last, an offset, or @SECONDS since 1970.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many.")
@click.option("--timeout", callback=_duration, help="Stop when none came for so long.")
@_remote
@_json
def tail(**options: Any) -> None:
    """Print the messages of the topics that PATTERN matches, as they come."""
    from . import verbs

    verbs.run(verbs.tail, options)


@broker.command()
@click.argument("pattern", default=">")
@_remote
@_json
def topics(**options: Any) -> None:
    """List topics."""
    from . import verbs

    verbs.run(verbs.topics, options)


@broker.command()
@_remote
@_json
def groups(**options: Any) -> None:
    """List groups."""
    from . import verbs

    verbs.run(verbs.groups, options)


@broker.command()
@click.option("--group")
@_remote
@_json
def lag(**options: Any) -> None:
    """List how many messages each group has before it."""
    from . import verbs

    verbs.run(verbs.lag, options)


@broker.command()
@click.argument("group")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@_remote
@_json
def redrive(**options: Any) -> None:
    """Send the dead letters of GROUP back to where they came from."""
    from . import verbs

    verbs.run(verbs.redrive, options)


@broker.command()
@click.option("--data", required=True, metavar="DIR")
@_json
def verify(data: str, as_json: bool) -> None:
    """Check every byte of a stopped broker's log; exit 1 if something is wrong."""
    from . import verbs

    sys.exit(verbs.inspect(data, as_json, repairing=False))


@broker.command()
@click.option("--data", required=True, metavar="DIR")
@click.confirmation_option("--yes", prompt="Damaged files are set aside and the log goes on without them. Repair?")
@_json
def repair(data: str, as_json: bool) -> None:
    """Make a damaged log usable: what is damaged is kept aside, what is whole is kept."""
    from . import verbs

    sys.exit(verbs.inspect(data, as_json, repairing=True))


@broker.command()
@click.option("--messages", type=click.IntRange(100), default=50_000, show_default=True)
@click.option("--size", "payload_size", callback=_size, default="100", show_default=True)
@click.option("--window", type=click.IntRange(1), default=1000, show_default=True, help="Messages in flight.")
@_remote
@_json
def bench(**options: Any) -> None:
    """Measure a running broker: publish, publish one by one, drain with ack. Writes to topics bench.*"""
    from . import verbs

    verbs.run(verbs.bench, options)


@broker.command()
@click.option("--token", is_flag=True, help="Hash a token instead of a password.")
def passwd(token: bool) -> None:
    """Hash a password (or token) for the token file; asks for it."""
    from .security import hash_password, hash_token

    text = click.prompt(
        "token" if token else "password", hide_input=True, confirmation_prompt=sys.stdin.isatty(), err=True
    )
    click.echo(hash_token(text) if token else hash_password(text))
