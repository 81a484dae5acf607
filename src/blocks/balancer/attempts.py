"""What is kept of a request that did not go through at once: how it looked, where it was tried, and why it may not go again."""

from __future__ import annotations

from random import Random

from blocks.core.errors import Failure
from blocks.http.body import Body, Stream
from blocks.http.message import Request, Section

from .endpoint import Endpoint
from .retries import Retries, may_retry


class Attempts:
    """One request on its way through several tries. Made only when the first choice failed or was full.

    Filters inside an endpoint may change a request; ``rewind`` gives the next try what the first one got.
    """

    __slots__ = ("body", "method", "request", "rounds", "section", "target", "tried", "tries", "until")

    def __init__(
        self, request: Request, method: str, target: str, section: Section, body: Body, until: float, tries: int = 0
    ) -> None:
        self.request = request
        self.method = method
        self.target = target
        self.section = section
        self.body = body
        self.until = until  # the deadline for all tries together
        self.tries = tries
        self.rounds = 0
        self.tried: tuple[Endpoint, ...] = ()

    def rewind(self, deadline: float) -> None:
        """Make the request what it was before its first try, to be answered by ``deadline``."""
        request = self.request
        request.method = self.method
        request.target = self.target
        request.headers.section = self.section
        request.body = self.body
        request.deadline = deadline

    def refusal(self, retries: Retries, error: Failure | None, now: float) -> str:
        """Why it may not be sent again after ``error`` (None: after an answer with a status to retry); empty when it may."""
        if isinstance(self.body, Stream) and not self.body.untouched:
            return "its body was read from a stream"
        if error is None:
            if self.method not in retries.methods:
                return f"{self.method} may not be repeated"
        elif not may_retry(retries, self.method, error):
            return f"{self.method} may not be repeated after {error.reason}"
        return "its deadline has passed" if now >= self.until else ""

    def pause(self, retries: Retries, random: Random) -> float:
        """Begin another round over endpoints that all failed: the seconds to wait before it (full jitter, capped)."""
        self.rounds += 1
        self.tried = ()
        return float(retries.backoff) * random.uniform(0.5, 1.0) * min(10.0, 2.0 ** (self.rounds - 1))
