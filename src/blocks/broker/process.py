"""The broker as a process: ready line, drain on SIGTERM, at once on a second one, files read again on SIGHUP (``renewal``).

Exit codes: 0 fine, 1 failure, 3 configuration, 4 cannot bind, 5 the drain timed out.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks.core.activation import is_inherited
from blocks.core.errors import BlocksError, ConfigError
from blocks.core.notify import Notifier

from .address import Address
from .errors import BrokerError
from .message import Durability
from .renewal import Renewal
from .security import check_exposure, read_guard
from .server import server_tls

FINE, FAILURE, CONFIGURATION, CANNOT_BIND, DRAIN_TIMED_OUT = 0, 1, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``blocks broker`` was asked to run. ``grace`` seconds bound the drain; the rest is as on the command line."""

    data: str
    listen: str = "127.0.0.1:7400"
    http: str | None = None
    admin: str | None = None
    admin_token_file: str | None = None
    durability: Durability = "fsync"
    token_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    ports_file: str | None = None
    grace: float = 10.0
    webhooks: str | None = None
    broker: dict[str, Any] = field(default_factory=dict)


class CannotBind(Exception):
    """An address cannot be listened on."""


async def serve(settings: Settings) -> int:
    """Run a broker until it is told to stop; gives the exit code. Raises ``ConfigError``, ``CannotBind``, ``BrokerError``."""
    from .broker import Broker
    from .server import Server

    stop, now = _on_signals()
    guard = read_guard(settings.token_file) if settings.token_file is not None else None
    if not is_inherited(settings.listen):  # one that is, the server looks at
        check_exposure(Address.parse(settings.listen).host, guard)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            Broker(settings.data, durability=settings.durability, **settings.broker)
        )
        server = Server(
            broker,
            listen=settings.listen,
            guard=guard,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            tls_client_ca=settings.tls_client_ca,
        )
        stack.push_async_callback(server.stop, 0.0)
        try:
            await server.start()
            ready = {"event": "ready", "block": "broker", "pid": os.getpid(), "url": server.url}
            ready["listen"] = server.url.rpartition("/")[2]
            ready["port"] = Address.parse(str(ready["listen"])).port
            renewal = Renewal(settings, guard, broker.clock)
            await _open_doors(stack, settings, broker, server, guard, ready, renewal, stop)
        except OSError as error:
            if isinstance(error, BlocksError):  # the admin API's listener says it all
                raise CannotBind(error.strerror) from error
            raise CannotBind(f"cannot listen on {settings.listen}: {error.strerror or error}") from error
        if broker.engine.damage:
            ready["damage"] = list(broker.engine.damage)
        _announce(settings, ready)
        notifier = Notifier()
        notifier.ready(f"serving on {server.url}")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _renew, renewal, notifier)
        stack.callback(notifier.watch(asyncio.get_running_loop()).cancel)
        await stop.wait()
        notifier.stopping(settings.grace)
        draining = asyncio.ensure_future(server.stop(settings.grace))
        hurrying = asyncio.ensure_future(now.wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait({draining})
            await server.stop(0.0)
            return FINE
        return FINE if draining.result() else DRAIN_TIMED_OUT


async def _open_doors(
    stack: AsyncExitStack,
    settings: Settings,
    broker: Any,
    server: Any,
    guard: Any,
    ready: dict[str, Any],
    renewal: Renewal,
    stop: asyncio.Event,
) -> None:
    """The HTTP listeners and the webhooks that are asked for; their addresses go into ``ready``, their certificates to ``renewal``."""
    tls = server_tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    renewal.contexts = [context for context in (server.tls, tls) if context is not None]
    if settings.http is not None:
        from .frontdoor import FrontDoor

        door = await stack.enter_async_context(FrontDoor(broker, listen=settings.http, guard=guard, tls=tls))
        ready["http"] = door.url
    if settings.admin is not None:
        from .backdoor import BackDoor

        subject = _subject(renewal, broker, server, stop)
        back = BackDoor(broker, listen=settings.admin, token_file=settings.admin_token_file, subject=subject)
        ready["admin"] = (await stack.enter_async_context(back)).url
    if settings.webhooks is not None:
        from .push import read_webhooks

        for push in read_webhooks(broker, settings.webhooks):
            await stack.enter_async_context(push)


def _subject(renewal: Renewal, broker: Any, server: Any, stop: asyncio.Event) -> Any:
    """What the admin API is about: this broker, and what it was started with."""
    from blocks.http.admin import Subject

    async def reload() -> dict[str, Any]:
        return renewal.run()

    return Subject(
        "broker",
        roots=lambda: (broker,),
        listen=lambda: [server.url.rpartition("/")[2]],
        settings=lambda: renewal.configuration().tables,
        facts=lambda: renewal.configuration().facts,
        draining=stop.is_set,
        drain=stop.set,
        reload=reload,
    )


def _renew(renewal: Renewal, notifier: Notifier) -> None:
    """SIGHUP."""
    notifier.reloading()
    try:
        renewal.run()
    except ConfigError:
        pass  # it was told as an event, and /v1/status says it
    notifier.ready()


def _announce(settings: Settings, ready: dict[str, Any]) -> None:
    line = json.dumps(ready)
    if settings.ports_file is not None:
        path = Path(settings.ports_file)
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_text(line + "\n")
            temporary.replace(path)  # whoever waits for the file never reads half of it
        except OSError as error:
            raise ConfigError(f"the ports file {path} cannot be written: {error.strerror}") from error
    print(line, flush=True)


def _on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set at the first SIGTERM or SIGINT (or by the admin API), and at the second signal."""
    loop = asyncio.get_running_loop()
    stop, now = asyncio.Event(), asyncio.Event()
    received: list[None] = []

    def receive() -> None:
        stop.set()
        received.append(None)
        if len(received) > 1:
            now.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until it serves there is nothing to read again
    return stop, now


def run(settings: Settings) -> int:
    """Run a broker in this process, on uvloop where there is one; gives the exit code and has said why on stderr."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(serve(settings))
    except ConfigError as error:
        return _fail(CONFIGURATION, error)
    except CannotBind as error:
        return _fail(CANNOT_BIND, error)
    except (BrokerError, OSError) as error:
        return _fail(FAILURE, error)


def _fail(code: int, error: Exception) -> int:
    print(f"blocks broker: {error}", file=sys.stderr)
    return code


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
