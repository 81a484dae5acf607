"""What all machines stand on: a loop in virtual time and a kit for each example, a bound on every step, a timeline with every failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, NoReturn, TypeVar

from blocks.core.errors import MissingExtra

from ..faultline import arm
from ..kit import Kit
from ..leaks import Held, settled
from ..virtual import VirtualLoop

try:
    from hypothesis import note
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule
except ImportError:
    raise MissingExtra("blocks.testing.machines", "hypothesis") from None

T = TypeVar("T")
SHOWN = 60  # lines of the timeline with a failure: one screen
STEP = 3600.0  # virtual seconds that one step may take


class Machine(RuleBasedStateMachine):
    """A rule-based state machine whose rules run coroutines: ``self.run(…)``. ``self.blocks`` is the kit of this example.

    Override ``setup`` to build, ``finish`` for what must hold at the end. Time passes only in rules that let it.
    """

    seed: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.blocks = Kit(self.seed)
        try:
            self._held = self.run(self._begin())
        except BaseException:
            self._close()
            raise

    async def _begin(self) -> Held:
        held = Held.now()
        await self.setup()
        return held

    async def setup(self) -> None:
        """Build what is under test with ``self.blocks``."""

    async def finish(self) -> None:
        """What must hold at the end of every example."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the example's loop. It has an hour of virtual time; a failure is told with the timeline."""
        try:
            return self._runner.run(_bounded(work))
        except Exception:
            note(f"timeline:\n{self.blocks.timeline.render(SHOWN) if self.blocks.used else 'nothing happened'}")
            raise

    def fail(self, why: str) -> NoReturn:
        """Fail with a reason."""
        raise AssertionError(why)

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.blocks.clock.monotonic()

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 30.0, 300.0)))
    def time_passes(self, seconds: float) -> None:
        """Everything that is due within so many seconds happens."""
        self.run(asyncio.sleep(seconds))

    def teardown(self) -> None:
        """Check the end, stop everything, and see that nothing is left."""
        try:
            self.run(self.finish())
        finally:
            self._close()

    def _close(self) -> None:
        try:
            left = self._runner.run(self._stop())
        finally:
            self._runner.close()
        if left:
            self.fail("left behind: " + ", ".join(left))

    async def _stop(self) -> list[str]:
        await self.blocks.close()
        held = getattr(self, "_held", None)
        return [] if held is None else await settled(held)

    def arm(self, faults: Any, line: str) -> None:
        """Arm a fault as it is written, on an origin's or a link's ``fault``."""
        arm(faults, line)
        self.blocks.timeline.note("test", f"arms {line}")


async def _bounded(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(STEP):
        return await work
