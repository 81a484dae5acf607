"""What a server's requests came to, for its operator: answers by class, and how long each took. Costs a request 0.4 µs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blocks.core.errors import ClientGone
from blocks.core.histogram import Histogram
from blocks.core.metrics import Reading

from .message import Request
from .service import Observer

Labels = tuple[tuple[str, str], ...]


class Meter:
    """A server's observer that counts, and passes on to ``then``.

    ``classes[s]`` counts whole answers of ``s``xx, ``classes[0]`` those that broke off; ``gone`` are clients that left before theirs
    was whole (nginx's 499). A tunnel (101) has no duration.
    """

    def __init__(self, time: Callable[[], float], then: Observer | None = None) -> None:
        self.classes = [0] * 10
        self.gone = 0
        self.durations = Histogram()
        self._time = time
        self._then = then

    def observe(self, request: Request, status: int, sent: int, began: float, error: BaseException | None) -> None:
        """An exchange has ended: the last byte is written, or it broke off."""
        if error is None or status >= 400:
            self.classes[status // 100] += 1
        elif isinstance(error, ClientGone):
            self.gone += 1
        else:
            self.classes[0] += 1
        if status != 101:
            self.durations.record(self._time() - began)
        if self._then is not None:
            self._then(request, status, sent, began, error)

    def readings(self, labels: Labels = ()) -> Iterable[Reading]:
        """As Prometheus series."""
        counts = {"failed": self.classes[0], "gone": self.gone}
        counts |= {f"{leading}xx": number for leading, number in enumerate(self.classes) if leading}
        for name, number in counts.items():
            if number:
                code = (*labels, ("code", name))
                yield Reading(
                    "blocks_http_responses_total", "counter", "Exchanges by class of the answer.", code, number
                )
        yield Reading(
            "blocks_http_request_seconds", "histogram", "From the request's head to the answer's last byte.", labels,
            self.durations,
        )  # fmt: skip
