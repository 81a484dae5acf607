"""Whatever happens to a table, in whatever order: its rotation follows from its rows, and time alone brings everyone back."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from blocks.balancer import Endpoint, Event, Health, Outlier
from blocks.balancer.events import Tape
from blocks.balancer.table import Table, rotate

from .scripted import Scripted

HEALTH = Health(rise=2, fall=2)
WHICH = st.integers(0, 9)


class Tables(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.told: list[Event] = []
        self.arranged: tuple[Endpoint, ...] = ()

    @initialize(
        panic=st.sampled_from([None, 0.0, 0.5, 1.0]), slow_start=st.sampled_from([0.0, 7.0]), many=st.integers(1, 5)
    )
    def begin(self, panic: float | None, slow_start: float, many: int) -> None:
        self.panic = panic
        self.outlier = Outlier(failures=2, base=5, cap=20, max_ejected=0.5)
        self.table = Table(
            Tape(self.told.append), self.changed, outlier=self.outlier, panic=panic, slow_start=slow_start
        )
        for _ in range(many):
            self.table.add(Endpoint(Scripted()), self.now)

    def changed(self) -> None:
        self.arranged = self.table.rotation

    def one(self, which: int) -> Endpoint:
        return self.table.endpoints[which % len(self.table.endpoints)]

    @rule(weight=st.integers(1, 5), priority=st.integers(0, 2))
    def add(self, weight: int, priority: int) -> None:
        if len(self.table.endpoints) < 8:
            self.table.add(Endpoint(Scripted(), weight=weight, priority=priority), self.now, late=True)

    @precondition(lambda self: len(self.table.endpoints) > 1)
    @rule(which=WHICH)
    def remove(self, which: int) -> None:
        gone = self.one(which)
        self.table.remove(gone, self.now)
        self.table.failed(gone, "late answer", self.now)  # what it had under way may still fail
        self.table.probed(gone, "late probe", HEALTH, self.now)

    @rule(which=WHICH, weight=st.floats(0.1, 10))
    def weigh(self, which: int, weight: float) -> None:
        self.table.weigh(self.one(which), weight, self.now)

    @rule(which=WHICH)
    def drain(self, which: int) -> None:
        self.table.drain(self.one(which), self.now)

    @rule(which=WHICH)
    def restore(self, which: int) -> None:
        self.table.restore(self.one(which), self.now)

    @rule(which=WHICH, problem=st.sampled_from(["", "status 500"]))
    def probe(self, which: int, problem: str) -> None:
        self.table.probed(self.one(which), problem, HEALTH, self.now)

    @rule(which=WHICH)
    def fail(self, which: int) -> None:
        self.table.failed(self.one(which), "reset", self.now)

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.table.next_at <= until:
            self.now = max(self.now, self.table.next_at)
            self.table.tick(self.now)
        self.now = until

    @invariant()
    def the_rotation_follows_from_the_rows(self) -> None:
        if hasattr(self, "table"):
            assert (self.table.rotation, self.table.panic) == rotate(self.table.endpoints, self.panic)
            assert self.arranged == self.table.rotation
            assert len(set(self.table.rotation)) == len(self.table.rotation)

    @invariant()
    def shares_are_weights_or_less(self) -> None:
        for endpoint in getattr(self, "table", Table(Tape(), lambda: None)).endpoints:
            assert 0 < endpoint.share <= endpoint.weight * (1 + 1e-9)
            assert (endpoint.warm_from == -inf) == (abs(endpoint.share - endpoint.weight) < 1e-9 * endpoint.weight)

    @invariant()
    def time_is_always_waited_for(self) -> None:
        if hasattr(self, "table"):
            waiting = [e for e in self.table.endpoints if e.ejected or e.warm_from > -inf]
            assert (self.table.next_at < inf) == bool(waiting)

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.wait(1000.0)
            for endpoint in self.table.endpoints:
                assert not endpoint.ejected
                assert endpoint.warm_from == -inf


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
