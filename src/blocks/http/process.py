"""A handler's life as a process: one event loop or several workers, a ready line, signals, a bounded drain, an exit code.

SIGTERM or SIGINT: stop accepting, let requests finish, leave; a second one stops now. SIGHUP: reopen logs, reload
certificates, and call the handler's own ``reload()`` if it has one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from blocks.core.errors import BlocksError, ConfigError
from blocks.core.logging import events

from .handler import Handler
from .options import Serving
from .server import CannotBind, Server

if TYPE_CHECKING:
    import socket

    from aiohttp import web

    from .tls import Certificates

FINE, FAILURE, USAGE, CONFIGURATION, CANNOT_BIND, DRAIN_TIMED_OUT = range(6)
"""Exit codes."""

Extend = Callable[["web.Application", Handler], None]
Ready = Callable[[dict[str, Any]], None]


def run_process(block: str, build: Callable[[], Handler], serving: Serving, *, admin: Extend | None = None) -> NoReturn:
    """Serve what ``build`` returns as ``serving`` says until a signal comes, then exit the process.

    ``build`` runs in each worker, before the event loop serves. ``admin`` adds a block's own routes to the admin API. Exit codes: 0 fine,
    1 failure, 3 configuration, 4 cannot bind, 5 requests were cut as the drain took too long. What was wrong is one line on standard error.
    """
    _raise_descriptor_limit()
    try:
        if serving.workers > 1:
            from .workers import supervise

            code = supervise(block, build, serving, admin)
        else:
            code = run_loop(work(block, build, serving, admin, lambda line: announce(line, serving.ports_file)))
    except CannotBind as error:
        code = _say(error, CANNOT_BIND)
    except ConfigError as error:
        code = _say(error, CONFIGURATION)
    except BlocksError as error:
        code = _say(error, FAILURE)
    except KeyboardInterrupt:
        code = FINE
    sys.exit(code)


def _say(error: BaseException, code: int) -> int:
    print(f"blocks: {error.args[-1] if error.args else error}", file=sys.stderr)
    return code


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` on uvloop where there is one, else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def announce(line: dict[str, Any], ports_file: str | None) -> None:
    """Print the ready line, and write it to the ports file: whole, or not at all."""
    text = json.dumps(line)
    if ports_file is not None:
        draft = f"{ports_file}.{os.getpid()}.tmp"
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(draft, ports_file)
    print(text, flush=True)


def ready_line(block: str, addresses: Sequence[str], tls: bool, admin: str | None, workers: int) -> dict[str, Any]:
    """What a process says when it is ready: where it really listens."""
    scheme = "https" if tls else "http"
    urls = [f"{scheme}://{address}" for address in addresses if not address.startswith("unix:")]
    ports = [int(address.rpartition(":")[2]) for address in addresses if not address.startswith("unix:")]
    line: dict[str, Any] = {
        "event": "ready",
        "block": block,
        "pid": os.getpid(),
        "workers": workers,
        "listen": list(addresses),
    }
    if urls:
        line |= {"url": urls[0], "port": ports[0]}
    if admin is not None:
        line["admin"] = admin if admin.startswith("unix:") else f"http://{admin}"
    return line


async def work(
    block: str,
    build: Callable[[], Handler],
    serving: Serving,
    extend: Extend | None,
    ready: Ready,
    *,
    addresses: Sequence[str] | None = None,
    sockets: Sequence[socket.socket] = (),
    shared: bool = False,
    lifeline: int | None = None,
) -> int:
    """One worker's life; the exit code. ``addresses`` and ``sockets`` replace ``serving.listen`` when ports are ``shared``.

    When ``lifeline``, a pipe that the parent holds the other end of, comes to its end, the parent is gone and the worker leaves, too.
    """
    loop = asyncio.get_running_loop()
    stopping, hurry = asyncio.Event(), asyncio.Event()
    reloads: list[Callable[[], None]] = []

    def on_stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    def on_orphaned(pipe: int) -> None:
        loop.remove_reader(pipe)
        on_stop()

    def on_reload() -> None:
        for reload in reloads:
            try:
                reload()
            except ConfigError as error:  # the old one stays in force, and the others still reload
                events().error("reload-failed", error=str(error))

    async with AsyncExitStack() as stack:
        for number, act in ((signal.SIGTERM, on_stop), (signal.SIGINT, on_stop), (signal.SIGHUP, on_reload)):
            loop.add_signal_handler(number, act)
            stack.callback(loop.remove_signal_handler, number)
        if lifeline is not None:
            loop.add_reader(lifeline, on_orphaned, lifeline)
        certificates = _certificates(serving)
        if certificates is not None:
            reloads.append(certificates.reload)
        observer = None
        if serving.access_log != "off":
            from .filters.access_log import AccessLog

            log = await stack.enter_async_context(AccessLog(serving.access_log, serving.access_log_format))
            observer = log.observe
            reloads.append(log.reopen)
        handler = build()
        reload = getattr(handler, "reload", None)
        if reload is not None:
            reloads.append(reload)
        server = Server(
            handler,
            *(serving.listen if addresses is None else addresses),
            tls=certificates.context if certificates is not None else None,
            limits=serving.limits,
            timeouts=serving.timeouts,
            max_connections=serving.max_connections,
            observer=observer,
            reuse_port=shared,
            sockets=sockets,
            drain=serving.drain,
        )
        await server.start()
        stack.push_async_callback(server.stop, 0)
        bound = None
        if serving.admin is not None:
            from .admin import Admin

            admin = Admin(block, server, serving, extend)
            bound = await stack.enter_async_context(admin)
            admin.on_drain = on_stop
        gc.collect()
        gc.freeze()
        threading.Thread(
            target=import_module, args=("structlog",), daemon=True
        ).start()  # or the first event would hold the loop up
        ready(ready_line(block, server.addresses, certificates is not None, bound, serving.workers))
        await stopping.wait()
        return await _drain(server, hurry)


async def _drain(server: Server, hurry: asyncio.Event) -> int:
    """Let requests finish until all are done, the time is up, or somebody is in a hurry."""
    loop = asyncio.get_running_loop()
    drained = loop.create_task(server.drain())
    hurried = loop.create_task(hurry.wait())
    try:
        await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            drained.cancel()
            await server.drain(0)
            return DRAIN_TIMED_OUT
        return FINE if drained.result() else DRAIN_TIMED_OUT
    finally:
        hurried.cancel()
        await asyncio.gather(drained, hurried, return_exceptions=True)


def _certificates(serving: Serving) -> Certificates | None:
    if not serving.tls_cert:
        return None
    from .tls import Certificates

    return Certificates(list(zip(serving.tls_cert, serving.tls_key, strict=True)), client_ca=serving.tls_client_ca)


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system allows: a proxy needs two for each client (nginx: worker_rlimit_nofile)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass
