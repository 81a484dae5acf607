"""Raw bytes on both sides of a proxy: a scripted backend that reads with h11, and a client that reads with h11."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11

from blocks.http import Server, Upstream

WAIT = 10.0  # seconds for anything that happens at once on a quiet machine


class Close:
    """A step of an answer: end the connection."""


class Reset:
    """A step of an answer: reset the connection."""


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Step = bytes | type[Close] | type[Reset]
Steps = bytes | list[Step]


@dataclass
class Seen:
    """A request as a backend saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def reset(transport: Any) -> None:
    """End a connection with RST: ``abort`` alone sends FIN when everything was read."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Connection(asyncio.Protocol):
    """One connection to a backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.raw = b""
        self.parser = h11.Connection(h11.SERVER)
        self.present: Seen | None = None
        self.lost = asyncio.Event()
        self.ended = False
        self.error: Exception | None = None
        self.switched = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.backend.connections.append(self)
        if self.backend.on_connect is not None:
            self.steps(self.backend.on_connect)

    def data_received(self, data: bytes) -> None:
        self.raw += data
        if self.switched:
            self.backend.changed.set()
            return
        try:
            self.parser.receive_data(data)
            self.read()
        except h11.RemoteProtocolError as error:
            self.backend.violations.append((str(error), self.raw))
            self.transport.abort()
        self.backend.changed.set()

    def read(self) -> None:
        while True:
            event = self.parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                self.present = Seen(event.method.decode(), event.target.decode(), headers)
                self.backend.requests.append(self.present)
                early = self.backend.at_head
                if early is not None:
                    self.steps(early)
            elif isinstance(event, h11.Data):
                self.present.body += bytes(event.data)  # type: ignore[union-attr]
            elif isinstance(event, h11.EndOfMessage):
                seen, self.present = self.present, None
                assert seen is not None
                seen.complete = True
                seen.trailers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                rest = self.parser.trailing_data[0]
                self.parser = h11.Connection(h11.SERVER)
                if rest:
                    self.parser.receive_data(rest)
                answer = self.backend.answer
                self.steps(answer(seen, len(self.backend.requests)) if callable(answer) else answer)

    def steps(self, steps: Steps) -> None:
        for step in [steps] if isinstance(steps, bytes) else steps:
            if step is Close:
                self.transport.close()
            elif step is Reset:
                reset(self.transport)
            elif step:
                self.transport.write(step)
                if step.startswith(b"HTTP/1.1 101"):  # type: ignore[union-attr]
                    self.switched = True

    def eof_received(self) -> bool:
        self.ended = True
        self.backend.changed.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.lost.set()
        self.backend.changed.set()


class Backend:
    """``answer`` is what it says to a whole request: bytes, steps, or a function of (request, how many there were)."""

    def __init__(
        self,
        answer: Steps | Callable[[Seen, int], Steps] = OK,
        *,
        at_head: Steps | None = None,
        on_connect: Steps | None = None,
        tls: ssl.SSLContext | None = None,
        path: str | None = None,
    ) -> None:
        self.answer = answer
        self.at_head = at_head
        self.on_connect = on_connect
        self.tls = tls
        self.path = path
        self.requests: list[Seen] = []
        self.violations: list[tuple[str, bytes]] = []
        self.connections: list[Connection] = []
        self.changed = asyncio.Event()

    async def __aenter__(self) -> Backend:
        loop = asyncio.get_running_loop()
        if self.path is not None:
            self.server: Any = await loop.create_unix_server(lambda: Connection(self), self.path)
            self.url = f"unix:{self.path}"
            return self
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.server.close()
        for connection in self.connections:
            connection.transport.abort()
        for connection in self.connections:
            await asyncio.wait_for(connection.lost.wait(), WAIT)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that the backend sees."""
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_seen(self, count: int = 1) -> None:
        await self.until(lambda: len(self.requests) >= count)


@dataclass
class Answer:
    """A response as a client saw it; ``whole`` is False when it was cut short."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False
    trailers: dict[str, str] = field(default_factory=dict)


def answers(raw: bytes, *methods: str, closed: bool = True) -> list[Answer]:
    """The responses in ``raw``, interim ones too, to requests of ``methods`` (GET when they run out), as h11 reads them."""
    found: list[Answer] = []
    left = iter(methods)
    while raw:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        method = next(left, "GET")
        parser.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(raw)
        if closed:
            parser.receive_data(b"")
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError:
                return found  # cut short: ``whole`` stays False
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return found
            if isinstance(event, h11.Response | h11.InformationalResponse):
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                found.append(Answer(event.status_code, headers, whole=isinstance(event, h11.InformationalResponse)))
            elif isinstance(event, h11.Data):
                found[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found[-1].whole = True
                found[-1].trailers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                raw = parser.trailing_data[0]
                break
    return found


class Client:
    """A raw client. ``async with Client(server) as client: client.send(b"…"); await client.all()``."""

    def __init__(self, where: Server | int | str, tls: ssl.SSLContext | None = None) -> None:
        address = (
            where.addresses[0]
            if isinstance(where, Server)
            else f"127.0.0.1:{where}"
            if isinstance(where, int)
            else where
        )
        self.address = address
        self.tls = tls
        self.reset = False
        self.raw = b""

    async def __aenter__(self) -> Client:
        if self.address.startswith("unix:"):
            self.reader, self.writer = await asyncio.open_unix_connection(self.address[5:])
        else:
            host, _, port = self.address.rpartition(":")
            name = "localhost" if self.tls is not None else None
            self.reader, self.writer = await asyncio.open_connection(
                host, int(port), ssl=self.tls, server_hostname=name
            )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        self.writer.write_eof()

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        data = await asyncio.wait_for(self.reader.readuntil(mark), WAIT)
        self.raw += data
        return data

    async def exactly(self, size: int) -> bytes:
        data = await asyncio.wait_for(self.reader.readexactly(size), WAIT)
        self.raw += data
        return data

    async def all(self) -> bytes:
        """Everything until the server ends the connection; ``reset`` says how."""
        async with asyncio.timeout(WAIT):
            try:
                while data := await self.reader.read(65536):
                    self.raw += data
            except (ConnectionError, ssl.SSLError):
                self.reset = True
        return self.raw


async def talk(where: Server | int | str, data: bytes, *methods: str) -> list[Answer]:
    """Send ``data``, read until the server ends the connection; its answers."""
    async with Client(where) as client:
        client.send(data)
        return answers(await client.all(), *methods)


LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"  # put behind what a server should survive


@asynccontextmanager
async def proxy(backend: Backend, *, upstream: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Server]:
    """A server before ``backend``."""
    handler = Upstream(backend.url, **({"timeout": 5.0} | (upstream or {})))
    async with Server(handler, "127.0.0.1:0", **settings) as server:
        yield server


class JumpLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps when it is told to: minutes of timeouts in milliseconds, on real sockets."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def jump(seconds: float) -> None:
    """Let ``seconds`` pass, with a sweep of the deadlines at the end of them."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpLoop)
    for _ in range(6):  # what was sent arrives before
        await asyncio.sleep(0)
    loop.ahead += seconds
    for _ in range(6):
        await asyncio.sleep(0)
    loop.ahead += 0.3  # one sweep
    for _ in range(6):
        await asyncio.sleep(0)


def jumping(function: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on a ``JumpLoop``."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=JumpLoop) as runner:
            runner.run(function(*args, **kwargs))

    return run
