"""A block behind its own server: what ``blocks.balancer(…)`` and its siblings return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from blocks.core.clock import Clock
from blocks.core.status import Status
from blocks.http.handler import Handler, is_direct, status_of
from blocks.http.message import Request, Response
from blocks.http.server import Server
from blocks.http.upstream import Upstream

from .timeline import Timeline

B = TypeVar("B", bound=Handler)


class Front(Generic[B]):
    """Serves ``block`` on ``url``. What it does not know itself it takes from the block: ``front.endpoints``, ``front.counts``.

    It is a handler too: given to another block it is called in the process, without a hop; the server enters the block once.
    """

    def __init__(self, make: Callable[[], B], name: str, clock: Clock, timeline: Timeline) -> None:
        self.block = make()
        self.name = name
        self.direct = is_direct(self.block)
        self._make = make
        self._clock = clock
        self._timeline = timeline
        self._address = "127.0.0.1:0"
        self._server = self._serving()
        self._client: Upstream | None = None

    def _serving(self) -> Server:
        return Server(self.block, self._address, clock=self._clock, observer=self._observe, drain=1.0)

    async def start(self) -> Front[B]:
        """Enter the block and listen."""
        await self._server.start()
        self._address = self._server.addresses[0]
        return self

    async def stop(self) -> None:
        """Close the client, drain for a second at most, and leave the block."""
        await self._end(1.0)

    async def _end(self, grace: float) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self._server.stop(grace)

    async def crash(self) -> None:
        """End at once, as a killed process: connections are cut, and connecting is refused until ``restart``."""
        await self._end(0.0)
        self._timeline.note(self.name, "crashed")

    async def restart(self) -> None:
        """Start a new block, made as the first one was, on the same port: what it only had in memory is gone."""
        await self._end(0.0)
        self.block = self._make()
        self._server = self._serving()
        await self.start()
        self._timeline.note(self.name, "started again")

    @property
    def url(self) -> str:
        """Where it listens, ``http://127.0.0.1:PORT``."""
        return f"http://{self._address}"

    @property
    def status(self) -> Status:
        """How well the block is."""
        return status_of(self.block)

    async def __call__(self, request: Request) -> Response:
        """As the block, in the process."""
        try:
            response = await self.block(request)
        except BaseException as error:
            self._timeline.note(
                self.name, f"{request.method} {request.target} -> {type(error).__name__}, in the process"
            )
            raise
        self._timeline.note(self.name, f"{request.method} {request.target} -> {response.status}, in the process")
        return response

    async def request(
        self, method: str, path: str = "/", headers: dict[str, str] | None = None, body: bytes | str = b""
    ) -> Response:
        """Ask over a real connection; the answer's body is read."""
        if self._client is None:
            self._client = Upstream(self.url, name=f"client of {self.name}")
        content = body.encode() if isinstance(body, str) else body
        host = self.url.partition("://")[2]
        response = await self._client(Request(method, path, {"host": host, **(headers or {})}, content))
        await response.read()
        return response

    async def get(self, path: str = "/", headers: dict[str, str] | None = None) -> Response:
        """``request("GET", …)``."""
        return await self.request("GET", path, headers)

    def _observe(self, request: Request, status: int, sent: int, began: float, error: BaseException | None) -> None:
        failed = f" ({getattr(error, 'reason', type(error).__name__)})" if error is not None else ""
        self._timeline.note(self.name, f"{request.method} {request.target} -> {status}{failed}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.block, name)

    def __repr__(self) -> str:
        return f"<{self.name} on {self._address}>"
