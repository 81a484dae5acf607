"""Which requests are hit: exactly those, each time the same."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks import Request
from blocks.core.errors import ConfigError
from blocks.testing import Faults
from blocks.testing.faultline import VERBS, arm


def ask(faults: Faults, count: int, **request) -> list[int]:
    """The numbers, of the next ``count`` requests, that were hit."""
    return [number for number in range(1, count + 1) if faults.decide(Request(**request)) is not None]


def test_the_next_two_are_exactly_two_of_ten_thousand():
    faults = Faults()
    armed = faults.next(2).reset()
    assert ask(faults, 10_000) == [1, 2]
    assert armed.spent
    assert faults.rules == []


def test_every_after_and_next_go_together():
    faults = Faults()
    armed = faults.after(5).every(10).next(3).hang()
    assert ask(faults, 100) == [15, 25, 35]
    assert armed.hits == [15, 25, 35]


def test_what_does_not_match_is_not_counted():
    faults = Faults()
    faults.matching(method="POST", path="/pay").next(2).status(503)
    assert ask(faults, 5) == []
    assert ask(faults, 3, method="POST", target="/pay/1?x=1") == [1, 2]
    header = faults.matching(header="x-test").next().close()
    assert ask(faults, 1) == []
    assert ask(faults, 2, headers={"X-Test": "1"}) == [1]
    assert header.spent


def test_the_first_armed_that_fits_strikes_alone():
    faults = Faults()
    first, second = faults.next(1).reset(), faults.next(1).hang()
    assert [str(faults.decide(Request())) for _ in range(3)] == ["reset", "hang", "None"]
    assert (first.hits, second.hits) == ([1], [2])


def test_disarmed_and_cleared_rules_hit_nothing():
    faults = Faults()
    armed = faults.always().delay("200ms")
    assert str(faults.decide(Request())) == "delay 0.2s"
    armed.disarm()
    faults.next(3).reset()
    faults.clear()
    assert ask(faults, 10) == []


@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.integers(1, 5))
def test_a_seed_repeats_everything_and_a_log_replays_it(seed: int, share: float, step: int):
    def run(faults: Faults) -> list[str]:
        faults.chance(share).corrupt_body()
        faults.every(step).reset()
        return [str(faults.decide(Request())) for _ in range(50)]

    one, two = Faults(Random(seed)), Faults(Random(seed))
    assert run(one) == run(two)
    assert list(one.log) == list(two.log)
    again = Faults(Random(0))
    again.replay(one.log)
    for _ in range(50):
        again.decide(Request())
    assert list(again.log) == list(one.log)


@pytest.mark.parametrize(
    "line",
    [
        "reset", "next 2: reset", "every 10 path /pay: delay 200ms", "chance 1%: cut-body 100", "after 3, next 1: cut-head",
        "method POST next 2: status 503", "trickle 1 100ms", "bandwidth 10kB/s", "connections next 1: reset",
        "connections: bandwidth 1kB/s", "next 2: reorder 2 5s", "reorder", "connections next 1: delay 1s", "connections: corrupt-body",
    ],
)  # fmt: skip
def test_lines_that_people_write_are_armed(line: str):
    faults = Faults()
    arm(faults, line)
    assert len(faults.rules) + len(faults.connections.rules) == 1


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("next two: reset", "'two' is not a whole number"),
        ("next: reset", "'next' needs a value"),
        ("some 2: reset", "'some' chooses nothing"),
        ("next 2: rest", "no fault 'rest'"),
        ("next 2: delay", "delay takes 1 values, not 0"),
        ("next 2: delay soon", "is not a duration"),
        ("chance 200%: reset", "at most 1"),
        ("next 0: reset", "would hit nothing"),
        ("every 0: reset", "means nothing"),
        ("connections: status 503", "is for requests"),
        ("reorder 0", "means nothing"),
        ("", "there is no fault ''"),
    ],
)
def test_lines_that_mean_nothing_say_which_word(line: str, names: str):
    faults = Faults()
    with pytest.raises(ConfigError, match=names):
        arm(faults, line)
    assert faults.rules == []


def test_connections_refuse_what_only_requests_can_have():
    faults = Faults()
    with pytest.raises(ConfigError, match="status-503 is for requests"):
        faults.connections.next().status(503)
    with pytest.raises(ConfigError, match="has no method, path or header"):
        faults.connections.matching(path="/pay")
    faults.connections.matching(lambda client: client[1] % 2 == 0).next().reset()
    assert [faults.connections.decide(("127.0.0.1", port)) is not None for port in (1, 2, 4)] == [False, True, False]


def test_every_verb_is_a_method():
    faults = Faults()
    needs = {"delay": "1s", "bandwidth": "1kB/s", "status": "500"}
    for verb in VERBS:
        arm(faults, f"{verb} {needs.get(verb, '')}")
    assert len(faults.rules) == len(VERBS)


async def test_a_link_is_steered_over_http(blocks):
    from blocks.testing.control import Control

    origin = await blocks.origin("hello")
    link = await blocks.link(origin)
    control = Control(link)

    async def tell(path: str, body: str = "") -> int:
        return (await control(Request("POST", path, None, body.encode()))).status

    assert await tell("/stall", "to-client") == 200
    assert (link.stalled("to-client"), link.stalled("to-server")) == (True, False)
    assert await tell("/stall") == 200
    assert link.stalled("to-server")
    assert await tell("/flow") == 200
    assert not link.stalled("to-client")
    assert await tell("/slow", "to-client 2s\nto-server 500ms\n") == 200
    assert link.latency == {"to-client": 2.0, "to-server": 0.5}
    assert [
        await tell(path, body) for path, body in [("/stall", "up"), ("/slow", "to-client"), ("/slow", "to-client x")]
    ] == [400] * 3
    assert await tell("/nothing") == 404
    assert (await Control(origin)(Request("POST", "/stall"))).status == 404


async def test_rules_over_http_are_armed_all_or_none(blocks):
    from blocks.testing.control import Control

    origin = await blocks.origin()
    control = Control(origin)
    bad = await control(Request("POST", "/arm", None, b"next 1: reset\nnext two: reset"))
    assert (bad.status, origin.fault.rules) == (400, [])
    good = await control(Request("POST", "/arm", None, b"next 1: reset\nnext 2: status 503"))
    assert (good.status, len(origin.fault.rules)) == (200, 2)
    assert (await control(Request("POST", "/clear"))).status == 200
    assert origin.fault.rules == []
