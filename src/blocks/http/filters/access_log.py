"""One line for each request, when it has ended: a tuple in the request's time, encoded and written in batches.

As ``Server(observer=log.observe)`` it sees all that the server does, malformed requests and bytes on the wire included. As a filter it sees
what passes its place in a chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from blocks.core.clock import SYSTEM, Clock, exact
from blocks.core.errors import ClientGone, ConfigError, Failure
from blocks.core.lines import FLUSH, Lines
from blocks.core.metrics import Reading
from blocks.core.quantities import seconds

from ..body import Stream
from ..handler import Handler
from ..message import Headers, Request, Response
from .access_lines import combined_lines, json_lines
from .relay import Relay

FORMATS: dict[str, Callable[[], Callable[[Sequence[Any]], bytes]]] = {"json": json_lines, "combined": combined_lines}
_NO_NOTES: dict[Any, Any] = {}


class AccessLog:
    """Writes a line for each request to ``path`` (``-``: standard output) as ``json`` or in Apache's ``combined`` format.

    ``flush`` is how long a line may wait. Parameters of a query that are named like secrets are masked; ``query=False`` leaves queries
    out. ``reopen()`` follows a rotation (SIGHUP). ``lines.dropped`` counts lines that a stuck sink cost. The sink opens with ``async with``
    (``running`` does it), or with the first line; ``close()`` writes the rest.
    """

    direct = True
    name = "access_log"

    def __init__(
        self,
        path: str = "-",
        format: str = "json",
        *,
        flush: float | str = FLUSH,
        query: bool = True,
        clock: Clock = SYSTEM,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(f"{format!r} is no format of access logs; it is one of {', '.join(FORMATS)}")
        self.lines = Lines(path, FORMATS[format](), flush_after=seconds(flush))
        self._put = self.lines.put
        self._query = query
        self._wall = clock.wall
        self._time: Callable[[], float] | None = None

    async def __aenter__(self) -> AccessLog:
        self.lines.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reopen(self) -> None:
        """Go on in a new file of the same name."""
        self.lines.reopen()

    def close(self) -> None:
        """Write what waits; a later line opens the sink again."""
        self.lines.close()

    def readings(self) -> Iterator[Reading]:
        """Its figures for the metrics."""
        lines = self.lines
        yield Reading("blocks_http_access_log_lines_total", "counter", "Lines handed to the log.", (), lines.written)
        yield Reading("blocks_http_access_log_dropped_total", "counter", "Lines that the sink cost.", (), lines.dropped)

    def observe(self, request: Request, status: int, sent: int, began: float, error: BaseException | None) -> None:
        """An exchange has ended: ``sent`` bytes left, it began at ``began`` on the loop's clock, ``error`` is what went wrong."""
        time = self._time
        if time is None:
            time = self._time = exact(asyncio.get_running_loop())
        notes = request._state or _NO_NOTES
        target = notes.get("target") or request.target  # as it came, where a block has changed it
        if not self._query:
            target = target.partition("?")[0]
        self._put(
            (
                self._wall(), notes.get("client") or request.peer.client[0], request.method, target, request.version, status, sent,
                time() - began, request.headers.section, notes, error and reason_of(error),
            )
        )  # fmt: skip

    async def __call__(self, request: Request, next: Handler) -> Response:
        """The filter: the line is written when the response's body has passed."""
        began = exact(asyncio.get_running_loop())()
        try:
            response = await next(request)
        except BaseException as error:
            self.observe(request, error.status if isinstance(error, Failure) else status_of(error), 0, began, error)
            raise
        body = response.body
        if isinstance(body, Stream):
            response.body = _Tally(self, request, response.status, began, body).start()
        else:
            sent = len(body) if isinstance(body, bytes) and request.method != "HEAD" else 0
            self.observe(request, response.status, sent, began, None)
        return response


def status_of(error: BaseException) -> int:
    """What a client is told for a failure that carries no status; 499 (nginx) when it is the client that left."""
    return 499 if isinstance(error, asyncio.CancelledError) else 500


def reason_of(error: BaseException) -> str:
    """A failure's short constant, else its type's name."""
    if isinstance(error, asyncio.CancelledError):
        return ClientGone.reason
    return error.reason if isinstance(error, Failure) else type(error).__name__


class _Tally(Relay):
    """Counts what passes and records once, at whichever end comes."""

    __slots__ = ("_began", "_log", "_request", "_sent", "_status")

    def __init__(self, log: AccessLog, request: Request, status: int, began: float, inner: Stream) -> None:
        super().__init__(inner, inner.length)
        self._log: AccessLog | None = log
        self._request, self._status, self._began = request, status, began
        self._sent = 0

    def _record(self, error: BaseException | None) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.observe(self._request, self._status, self._sent, self._began, error)

    def write(self, data: bytes) -> None:
        self._sent += len(data)
        self.stream.feed(data)

    def end(self, trailers: Headers | None) -> None:
        self._record(None)
        self.stream.finish(trailers)

    def abort(self, error: BaseException) -> None:
        self._record(error)
        self.stream.fail(error)

    def cancel(self) -> None:
        self._record(None if self._request.method == "HEAD" else ClientGone("the body was given up"))
        self.inner.cancel()
