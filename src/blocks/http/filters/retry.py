"""A request is tried again when that is safe, may help, and is within the budget.

The rule reads ``Failure.again`` and the method's idempotence (RFC 9110 §9.2.2), never a type's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from random import Random

from blocks.core.backoff import Backoff
from blocks.core.errors import Again, ConfigError, Failure, Fault
from blocks.core.metrics import Reading
from blocks.core.quantities import seconds, size

from ..body import Stream
from ..handler import Handler
from ..message import Request, Response, Section
from ..upstream import IDEMPOTENT
from .budget import Budget

STATUSES = frozenset({502, 503, 504})  # Envoy's retry_on gateway-error


def may_retry(idempotent: bool, outcome: Response | Failure, statuses: frozenset[int]) -> bool:
    """Whether asking again after ``outcome`` is safe and may help. ``idempotent``: the request may take effect twice without harm."""
    if isinstance(outcome, Response):
        return idempotent and outcome.status in statuses
    if outcome.again is Again.UNSENT:
        return outcome.fault is not Fault.CLIENT
    return idempotent and outcome.fault is Fault.UPSTREAM


class Retry:
    """A filter that asks again after a failure or one of ``statuses``, ``tries`` times in all.

    Waits grow from ``wait`` to ``longest`` seconds with full jitter; an answer's Retry-After is kept when it is no longer than
    ``longest``, and ends the matter when it is. A request is never tried past its deadline. POST and PATCH only when nothing of them was
    sent, unless ``methods`` names them. A body that is still coming is held when it states a length of at most ``buffer`` bytes
    (nginx buffers all of it, 16 KiB in memory); any other is tried once. ``budget`` is shared by giving the same one to several filters.
    """

    direct = True
    name = "retry"

    def __init__(
        self,
        tries: int = 3,
        *,
        statuses: Iterable[int] = STATUSES,
        methods: Iterable[str] = IDEMPOTENT,
        wait: float | str = 0.025,
        longest: float | str = 1.0,
        buffer: int | str = "64KiB",
        budget: Budget | None = None,
        random: Random | None = None,
    ) -> None:
        if tries < 1:
            raise ConfigError(f"tries={tries}: a request is tried at least once")
        self.budget = budget or Budget()
        self.retried = 0
        self._tries = tries
        self._statuses = frozenset(statuses)
        self._methods = frozenset(methods)
        self._wait, self._longest = seconds(wait), seconds(longest)
        if not 0 < self._wait <= self._longest:
            raise ConfigError("a retry needs 0 < wait <= longest")
        self._buffer = size(buffer)
        self._random = random or Random()

    def readings(self) -> Iterator[Reading]:
        """Its figures for the metrics."""
        yield Reading("blocks_http_retries_total", "counter", "Requests sent again.", (), self.retried)
        refused = self.budget.refused
        yield Reading("blocks_http_retries_refused_total", "counter", "Retries that the budget refused.", (), refused)

    async def __call__(self, request: Request, next: Handler) -> Response:
        """The first good answer, else the last bad one."""
        self.budget.deposit(asyncio.get_running_loop().time())
        body = request.body
        if isinstance(body, Stream) and body.length is not None and body.length <= self._buffer:
            await request.read(self._buffer)
        before = (request.headers.section, request.target, request.deadline)  # handlers below may change them
        try:
            response = await next(request)
        except Failure as failure:
            return await self._again(request, next, failure, before)
        if response.status in self._statuses:
            return await self._again(request, next, response, before)
        return response

    async def _again(
        self, request: Request, next: Handler, outcome: Response | Failure, before: tuple[Section, str, float]
    ) -> Response:
        section, target, deadline = before
        backoff = Backoff(self._wait, self._longest, random=self._random)
        for _ in range(self._tries - 1):
            if not self._may(request, outcome):
                break
            wait = self._pause(backoff, outcome)
            now = asyncio.get_running_loop().time()
            if wait is None or now + wait >= deadline or not self.budget.withdraw(now):
                break
            if isinstance(outcome, Response):
                outcome.discard()
            await asyncio.sleep(wait)
            self.retried += 1
            request.headers.section, request.target, request.deadline = section, target, deadline
            try:
                outcome = await next(request)
            except Failure as failure:
                outcome = failure
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    def _may(self, request: Request, outcome: Response | Failure) -> bool:
        if isinstance(outcome, Response) and outcome.status not in self._statuses:
            return False
        if isinstance(request.body, Stream) and not (
            request.body.untouched and isinstance(outcome, Failure) and outcome.again is Again.UNSENT
        ):
            return False
        return may_retry(request.method in self._methods, outcome, self._statuses)

    def _pause(self, backoff: Backoff, outcome: Response | Failure) -> float | None:
        """Seconds to wait, or None when the answer asks for more than we would."""
        wait = backoff.next()
        after = outcome.headers.find(b"retry-after") if isinstance(outcome, Response) else None
        if after is None or not after.isdigit():
            return wait
        asked = float(after[:9])
        return max(wait, asked) if asked <= self._longest else None
