"""Where misses go: one origin, or several in order of liking with fail-over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blocks.core.errors import Failure, Fault
from blocks.core.status import Status, best
from blocks.http.body import Stream
from blocks.http.handler import Handler, bind, status_of
from blocks.http.message import Request, Response

RETREAT = 10.0  # seconds that a failed origin is asked last (nginx: fail_timeout=10s)
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))
_TRY_NEXT = frozenset((502, 503, 504))  # nginx: proxy_next_upstream http_502 http_503 http_504
_UPSTREAM = Fault.UPSTREAM


class Origins:
    """Asks the first origin that is well; when that fails, the next, for requests that may be sent again.

    ``changed`` is told (place, well) when an origin fails or is back.
    """

    def __init__(
        self, origins: Sequence[Handler], monotonic: Callable[[], float], changed: Callable[[int, bool], None]
    ) -> None:
        self.handlers = tuple(origins)
        self._asked = [bind(origin) for origin in origins]
        self.only = self._asked[0] if len(self._asked) == 1 else None  # there is nothing to choose
        self._failed_until = [0.0] * len(self._asked)
        self._monotonic = monotonic
        self._changed = changed

    @property
    def status(self) -> Status:
        """As well as the best of them."""
        return best(status_of(handler) for handler in self.handlers)

    async def ask(self, request: Request) -> Response:
        """The answer of the first that gives one. Raises the last failure."""
        order = self._order()
        repeatable = request.method in _IDEMPOTENT and not isinstance(request.body, Stream)
        for place in order:
            last = place == order[-1] or not repeatable
            try:
                response = await self._asked[place](request.copy() if not last else request)
            except Failure as failure:
                if failure.fault is not _UPSTREAM:
                    raise
                self._note(place, False)
                if last:
                    raise
            else:
                if response.status not in _TRY_NEXT:
                    self._note(place, True)
                    return response
                self._note(place, False)
                if last:
                    return response
                response.discard()
        raise AssertionError("the last origin returns or raises")

    def _order(self) -> list[int]:
        now = self._monotonic()
        return sorted(range(len(self._asked)), key=lambda place: self._failed_until[place] > now)

    def _note(self, place: int, well: bool) -> None:
        was_well = self._failed_until[place] == 0.0
        self._failed_until[place] = 0.0 if well else self._monotonic() + RETREAT
        if well != was_well:
            self._changed(place, well)
