"""One timeline over all blocks of a test: who sent what when, which faults struck, what changed. Shown when the test fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

KEPT = 2_000  # events; a load of 10,000 requests must not fill the memory of a test run
SHOWN = 120  # lines of them in a report: two screens


class Timeline:
    """The last events as (seconds since the test began, who, what). ``note`` costs a tuple; text is made when somebody looks."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self.events: deque[tuple[float, str, object]] = deque(maxlen=KEPT)
        self.noted = 0

    def note(self, who: str, what: object) -> None:
        """Write down that ``who`` did, or met, ``what``; ``str(what)`` is taken when the timeline is shown."""
        self.noted += 1
        self.events.append((self._now() - self._began, who, what))

    def __iter__(self) -> Iterator[tuple[float, str, object]]:
        return iter(self.events)

    def __len__(self) -> int:
        return self.noted

    def render(self, limit: int = SHOWN) -> str:
        """The last ``limit`` events, one a line, with what was left out."""
        shown = list(self.events)[-limit:]
        width = max((len(who) for _, who, _ in shown), default=0)
        lines = [f"{at:10.3f} s  {who:<{width}}  {what}" for at, who, what in shown]
        if self.noted > len(shown):
            lines.insert(0, f"… {self.noted - len(shown)} earlier events")
        return "\n".join(lines) or "nothing happened"
