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
        """The last ``limit`` lines: an event each, or as many of the same in a row as there were; with what was left out."""
        runs: list[tuple[float, float, str, str, int]] = []
        for at, who, what in self.events:
            text = str(what)
            if runs and runs[-1][2:4] == (who, text):
                first, _, _, _, count = runs[-1]
                runs[-1] = (first, at, who, text, count + 1)
            else:
                runs.append((at, at, who, text, 1))
        shown = runs[-limit:]
        width = max((len(who) for _, _, who, _, _ in shown), default=0)
        lines = []
        for first, last, who, text, count in shown:
            times = f"  (×{count} until {last:.3f} s)" if count > 1 else ""
            lines.append(f"{first:10.3f} s  {who:<{width}}  {text}{times}")
        left_out = self.noted - sum(run[4] for run in shown)
        if left_out:
            lines.insert(0, f"… {left_out} earlier events")
        return "\n".join(lines) or "nothing happened"
