from __future__ import annotations

import asyncio
import io
import json

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.core.logging import Event, Events, events


def made(**settings: object) -> tuple[Events, io.StringIO, FakeClock]:
    output, clock = io.StringIO(), FakeClock()
    return Events(output=output, clock=clock, **settings), output, clock  # type: ignore[arg-type]


def test_an_event_is_one_line_of_json_with_its_time_first() -> None:
    log, output, _ = made(format="json")
    log.warning("ejected", endpoint="a", failures=5, share=0.5, error=ValueError("no\nway"), raw=b"\xffx")
    line = output.getvalue()
    assert line.count("\n") == 1
    told = json.loads(line)
    assert next(iter(told)) == "timestamp"
    assert told == {
        "timestamp": "2023-11-14T22:13:20.000Z", "level": "warning", "event": "ejected", "endpoint": "a", "failures": 5, "share": 0.5,
        "error": "ValueError: no\nway", "raw": "\ufffdx",
    }  # fmt: skip


def test_a_console_shows_no_control_characters() -> None:
    log, output, _ = made(format="console")
    log.info("path", path="/a\x1b[2Jb\nfake line")
    assert "\x1b" not in output.getvalue()
    assert output.getvalue().count("\n") == 1
    assert "fake line" in output.getvalue()


def test_levels_below_the_threshold_leave_no_trace() -> None:
    log, output, _ = made(level="warning", format="json")
    log.debug("a")
    log.info("b")
    log.error("c")
    assert [event["event"] for event in log.recent()] == ["c"]
    assert output.getvalue().count("\n") == 1


def test_the_ring_keeps_the_last() -> None:
    log, _, _ = made(ring=3, format="off")
    for number in range(5):
        log.info("n", number=number)
    assert [event["number"] for event in log.recent()] == [2, 3, 4]
    assert [event["number"] for event in log.recent(1)] == [4]
    assert log.recent(0) == []


def test_values_and_fields_are_bounded() -> None:
    log, _, _ = made(format="off")
    log.info("big", text="x" * 100_000, many=list(range(1000)), **{f"field{n}": n for n in range(100)})
    (event,) = log.recent()
    assert len(event["text"]) == 2001
    assert len(event["many"]) == 32
    assert len(event) <= 35


def test_a_burst_is_cut_and_what_was_left_out_is_told() -> None:
    log, output, clock = made(format="json")
    for _ in range(80):
        log.info("again")
    log.info("other")
    assert output.getvalue().count("\n") == 51
    assert len(log.recent()) == 81
    clock.advance(1.0)
    log.info("again")
    assert json.loads(output.getvalue().splitlines()[-1])["suppressed"] == 30


def test_subscribers_get_every_event_until_they_end_it_or_fail() -> None:
    log, _, _ = made(format="off")
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError

    log.subscribe(broken)
    end = log.subscribe(seen.append)
    log.info("one")
    end()
    end()
    log.info("two")
    assert [event["event"] for event in seen] == ["one"]
    with log.captured() as captured:
        log.info("three")
    log.info("four")
    assert [event["event"] for event in captured] == ["three"]


async def test_a_follower_that_is_slow_misses_the_oldest() -> None:
    log, _, _ = made(format="off")
    following = log.follow(bound=2)
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    log.info("a")
    assert (await first)["event"] == "a"
    for name in "bcde":
        log.info(name)
    assert [(await anext(following))["event"], (await anext(following))["event"]] == ["d", "e"]
    await following.aclose()  # type: ignore[attr-defined]
    assert log._subscribers == []


def test_a_closed_output_is_no_error() -> None:
    log, output, _ = made(format="json")
    output.close()
    log.info("a")
    assert len(log.recent()) == 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="loud"):
        Events(level="loud")
    with pytest.raises(ConfigError, match="xml"):
        Events(format="xml")


def test_there_is_one_log_of_events_in_a_process() -> None:
    assert events() is events()
