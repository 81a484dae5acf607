"""The table: who is in rotation and why, with time as an argument."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.balancer import Endpoint, Event, Health, Outlier, State
from blocks.balancer.events import PERIOD, TAPE, Tape
from blocks.balancer.health import objection
from blocks.balancer.table import WARM_FLOOR, Table, rotate
from blocks.core.errors import ConfigError
from blocks.http import Response

from .scripted import Scripted


class Board:
    """A table with endpoints a, b, c …, and what it told."""

    def __init__(
        self, many: int, *, priorities: str = "", panic: float | None = 0.0, slow_start: float = 0.0, **outlier: float
    ) -> None:
        self.told: list[Event] = []
        self.changes = 0
        rules = Outlier(**({"failures": 3, "base": 10, "cap": 60, "max_ejected": 1.0} | outlier))  # type: ignore[arg-type]
        self.table = Table(Tape(self.told.append), self._changed, outlier=rules, panic=panic, slow_start=slow_start)
        for n in range(many):
            endpoint = Endpoint(Scripted(), name=chr(97 + n), priority=int(priorities[n]) if priorities else 0)
            self.table.add(endpoint, 0.0)

    def _changed(self) -> None:
        self.changes += 1

    def __getitem__(self, name: str) -> Endpoint:
        return self.table.find(name)

    @property
    def rotation(self) -> str:
        return "".join(endpoint.name for endpoint in self.table.rotation)

    def fail(self, name: str, times: int, now: float) -> None:
        for _ in range(times):
            self.table.failed(self[name], "reset", now)

    @property
    def kinds(self) -> list[str]:
        return [f"{event.kind} {event.endpoint}".strip() for event in self.told]


HEALTH = Health(rise=2, fall=3)


def test_failures_in_a_row_eject_and_the_reason_is_told() -> None:
    board = Board(3)
    board.fail("a", 2, 1.0)
    assert board.rotation == "abc"
    board.fail("a", 1, 1.0)
    assert board.rotation == "bc"
    assert board["a"].state is State.EJECTED
    event = board.told[-1]
    assert (event.kind, event.endpoint, event.at) == ("ejected", "a", 1.0)
    assert event.reason == "3 failures in a row, last reset; for 10 s"


def test_an_ejection_ends_by_itself_and_the_next_failure_ends_the_trust() -> None:
    board = Board(3)
    board.fail("a", 3, 0.0)
    assert board.table.next_at == 10.0
    board.table.tick(9.9)
    assert board.rotation == "bc"
    board["a"].ewma = 5.0
    board.table.tick(10.0)
    assert board.rotation == "abc"
    assert board["a"].ewma == 0.0, "what was measured before says nothing any more"
    assert board.table.next_at == inf
    board.fail("a", 1, 11.0)
    assert board.rotation == "bc"
    assert board["a"].ejected_until == 11.0 + 20.0


def test_ejections_grow_up_to_the_cap_and_start_again_after_a_good_time() -> None:
    board = Board(3)
    now, lengths = 0.0, []
    board.fail("a", 3, now)
    for _ in range(5):
        lengths.append(board["a"].ejected_until - now)
        now = board["a"].ejected_until
        board.table.tick(now)
        board.fail("a", 1, now)
    assert lengths == [10, 20, 40, 60, 60]
    now = board["a"].ejected_until
    board.table.tick(now)
    board["a"].streak = 0
    board.fail("a", 3, now + 61)
    assert board["a"].ejected_until - (now + 61) == 10


def test_no_more_than_the_share_is_ejected_but_one_always_may_be() -> None:
    board = Board(4, max_ejected=0.5)
    for name in "abc":
        board.fail(name, 5, 0.0)
    assert board.rotation == "cd"
    assert "ejection-refused c" in board.kinds
    small = Board(3, max_ejected=0.1)
    small.fail("a", 3, 0.0)
    assert small.rotation == "bc"


def test_those_that_are_out_by_their_probes_count_in_the_share() -> None:
    board = Board(2, max_ejected=0.5)
    board.table.probed(board["a"], "status 500", HEALTH, 0.0)
    board.fail("b", 9, 0.0)
    assert board.rotation == "b"


def test_the_only_endpoint_is_never_ejected() -> None:
    board = Board(1)
    board.fail("a", 50, 0.0)
    assert board.rotation == "a"


def test_probes_need_fall_and_rise_in_a_row() -> None:
    board = Board(2)
    probe = lambda problem: board.table.probed(board["a"], problem, HEALTH, 1.0)  # noqa: E731
    for problem in ("", "status 500", "status 500", "", "status 500", "status 500"):
        probe(problem)
    assert board.rotation == "ab"
    probe("status 500")
    assert board.rotation == "b"
    assert board["a"].state is State.UNHEALTHY
    assert board.told[-1].reason == "3 probes failed: status 500"
    for problem in ("", "status 500", ""):
        probe(problem)
    assert board.rotation == "b"
    probe("")
    assert board.rotation == "ab"
    assert board.kinds[-1] == "healthy a"


def test_the_first_probe_decides_alone() -> None:
    board = Board(2)
    board.table.probed(board["a"], "connect-refused", HEALTH, 0.0)
    assert board.rotation == "b"


def test_probes_that_pass_bring_an_ejected_endpoint_back_early() -> None:
    board = Board(2)
    board.table.probed(board["a"], "", HEALTH, 0.0)
    board.fail("a", 3, 1.0)
    board.table.probed(board["a"], "", HEALTH, 2.0)
    assert board.rotation == "b"
    board.table.probed(board["a"], "", HEALTH, 3.0)
    assert board.rotation == "ab"
    assert board.table.next_at == inf


def test_passive_and_active_verdicts_do_not_hide_each_other() -> None:
    board = Board(2)
    board.fail("a", 3, 0.0)
    board.table.probed(board["a"], "status 503", HEALTH, 0.0)
    board.table.tick(10.0)
    assert board.rotation == "b", "its ejection is over, its probes still fail"


def test_when_none_is_left_all_are_used_and_that_is_a_panic() -> None:
    board = Board(2)
    board.fail("a", 3, 0.0)
    board.table.probed(board["b"], "status 500", HEALTH, 0.0)
    assert board.rotation == "ab"
    assert board.table.panic
    assert board.told[-1].kind == "panic"
    board.table.tick(10.0)
    assert board.rotation == "a"
    assert board.told[-1].kind == "panic-over"


def test_below_the_panic_threshold_all_are_used() -> None:
    board = Board(4, panic=0.5)
    for name in "ab":
        board.table.probed(board[name], "status 500", HEALTH, 0.0)
    assert board.rotation == "cd"
    board.table.probed(board["c"], "status 500", HEALTH, 0.0)
    assert board.rotation == "abcd"


def test_without_panic_a_bad_endpoint_is_never_used() -> None:
    board = Board(1, panic=None)
    board.table.probed(board["a"], "status 500", HEALTH, 0.0)
    assert board.rotation == ""


def test_backups_take_over_when_the_first_are_gone() -> None:
    board = Board(3, priorities="001")
    assert board.rotation == "ab"
    board.table.probed(board["a"], "down", HEALTH, 0.0)
    assert board.rotation == "b"
    board.table.probed(board["b"], "down", HEALTH, 0.0)
    assert board.rotation == "c"
    assert not board.table.panic


def test_backups_join_when_the_first_are_too_few() -> None:
    board = Board(4, priorities="0001", panic=0.5)
    for name in "ab":
        board.table.probed(board[name], "down", HEALTH, 0.0)
    assert board.rotation == "cd"


def test_a_draining_endpoint_is_not_even_used_in_a_panic() -> None:
    board = Board(2)
    board.table.drain(board["a"], 0.0)
    board.table.probed(board["b"], "down", HEALTH, 0.0)
    assert board.rotation == "b"
    board.table.restore(board["a"], 1.0)
    assert board.rotation == "a"


def test_slow_start_grows_from_a_tenth_to_the_whole() -> None:
    board = Board(2, slow_start=20)
    board.fail("a", 3, 0.0)
    board.table.tick(10.0)
    assert board["a"].state is State.WARMING
    assert board["a"].share == pytest.approx(WARM_FLOOR)
    shares = []
    while board.table.next_at < inf:
        now = board.table.next_at
        board.table.tick(now)
        shares.append(board["a"].share)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert now == pytest.approx(30.0)
    assert len(shares) <= 21


def test_a_new_weight_counts_in_proportion_even_while_warming() -> None:
    board = Board(2, slow_start=20)
    late = Endpoint(Scripted(), name="late", weight=2)
    board.table.add(late, 0.0, late=True)
    board.table.weigh(late, 4, 0.0)
    assert late.share == pytest.approx(0.4)


@given(st.lists(st.sampled_from(["ok", "ejected", "unwell", "draining"]), min_size=1, max_size=10), st.floats(0, 1))
def test_rotation_is_empty_only_when_all_drain_and_holds_no_draining_one(states: list[str], panic: float) -> None:
    endpoints = []
    for n, state in enumerate(states):
        endpoint = Endpoint(Scripted(), name=str(n), priority=n % 3)
        endpoint.well = state != "unwell"
        endpoint.draining = state == "draining"
        endpoint.ejected_until = 5.0 if state == "ejected" else -inf
        endpoints.append(endpoint)
    rotation, panicking = rotate(endpoints, panic)
    assert bool(rotation) == any(state != "draining" for state in states)
    assert not any(endpoint.draining for endpoint in rotation)
    assert panicking or all(endpoint.usable for endpoint in rotation)


def test_names_are_made_and_must_differ() -> None:
    table = Table(Tape(), lambda: None)
    for _ in range(2):
        table.add(Endpoint(Scripted()), 0.0)
    assert [endpoint.name for endpoint in table.endpoints] == ["scripted", "scripted#2"]
    with pytest.raises(ConfigError, match="already"):
        table.add(Endpoint(Scripted(), name="scripted"), 0.0)
    with pytest.raises(ConfigError, match="belongs to a balancer"):
        table.add(table.endpoints[0], 0.0)
    with pytest.raises(KeyError, match=r"scripted, scripted#2"):
        table.find("nope")


def test_a_snapshot_that_was_taken_does_not_change() -> None:
    board = Board(2)
    before = board.table.endpoints
    board.table.remove(board["a"], 0.0)
    assert [endpoint.name for endpoint in before] == ["a", "b"]
    assert [endpoint.name for endpoint in board.table.endpoints] == ["b"]


# -- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Endpoint(Scripted(), weight=0), "drain"),
        (lambda: Endpoint(Scripted(), weight=float("nan")), "weight"),
        (lambda: Endpoint(Scripted(), priority=-1), "priority"),
        (lambda: Endpoint(Scripted(), max_requests=0), "max_requests"),
        (lambda: Endpoint(Scripted(), metadata=[1]), "mapping"),  # type: ignore[arg-type]
        (lambda: Endpoint(Scripted(), priority="1"), "priority"),  # type: ignore[arg-type]
        (lambda: Endpoint(Scripted(), weight="3"), "weight"),  # type: ignore[arg-type]
        (lambda: Endpoint("http://x"), "handler"),  # type: ignore[arg-type]
        (lambda: Health(path="health"), "path"),
        (lambda: Health(path="/a b"), "path"),
        (lambda: Health(interval="2 parsecs"), "duration"),
        (lambda: Health(statuses=[]), "statuses"),
        (lambda: Health(expect_body="("), "regular expression"),
        (lambda: Health(rise=0), "rise"),
        (lambda: Health(jitter=1), "jitter"),
        (lambda: Health(mode="udp"), "http or tcp"),  # type: ignore[arg-type]
        (lambda: Outlier(failures=0), "failures"),
        (lambda: Outlier(base=10, cap=5), "base <= cap"),
        (lambda: Outlier(max_ejected=0), "max_ejected"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_health_from_an_interval_or_a_path() -> None:
    assert Health.of("250ms").interval == 0.25  # type: ignore[union-attr]
    assert Health.of("/up").path == "/up"  # type: ignore[union-attr]
    assert Health.of(None) is None


def test_what_makes_an_answer_a_good_one() -> None:
    health = Health(statuses=[200], expect_headers={"x-role": "^prim"}, expect_body="ready")
    good = Response(200, {"x-role": "primary"})
    assert objection(health, good, b"is ready now") == ""
    assert objection(health, good, b"warming") == "body does not match 'ready'"
    assert objection(health, Response(204), b"ready") == "status 204"
    assert objection(health, Response(200), b"ready") == "header x-role is missing"
    assert objection(health, Response(200, {"x-role": "replica"}), b"ready") == "header x-role does not match '^prim'"


# -- events


def test_what_requests_cause_is_told_once_a_second_with_its_count() -> None:
    told: list[Event] = []
    tape = Tape(told.append)
    for n in range(1000):
        tape.mention("retry", "a", "reset", 5.0 + n / 1000 * 0.9)
    assert [event.count for event in told] == [1]
    tape.mention("retry", "a", "reset", 5.0 + PERIOD)
    assert [event.count for event in told] == [1, 1000]
    tape.mention("retry", "b", "reset", 5.1)
    assert len(told) == 3


def test_what_was_held_back_is_told_before_the_next_decision() -> None:
    told: list[Event] = []
    tape = Tape(told.append)
    for at in (1.0, 1.1, 1.2):
        tape.mention("retry", "a", "reset", at)
    tape.tell("ejected", "b", "test", 1.3)
    tape.tell("ejected", "a", "test", 1.4)
    assert [str(event) for event in told] == [
        "retry a: reset", "ejected b: test", "retry a: reset (2 times)", "ejected a: test",
    ]  # fmt: skip


def test_the_tape_is_bounded_and_a_bad_listener_harms_nobody() -> None:
    told: list[Event] = []

    def bad(event: Event) -> None:
        raise ValueError("no")

    tape = Tape(bad, told.append)
    for _ in range(2 * TAPE):
        tape.tell("panic", "", "test", 0.0)
    assert len(tape.last) == TAPE
    assert len(told) == 2 * TAPE
    assert isinstance(tape.broken, ValueError)
