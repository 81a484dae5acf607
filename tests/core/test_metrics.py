from __future__ import annotations

import math
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from blocks.core.errors import ConfigError
from blocks.core.histogram import Histogram, middle, slot_of
from blocks.core.metrics import Metrics, Reading, merge, render

durations = st.floats(min_value=1e-9, max_value=16000.0)


@given(durations)
def test_the_middle_of_a_slot_is_within_one_and_a_half_percent_of_its_values(seconds: float) -> None:
    assert middle(slot_of(seconds)) == pytest.approx(seconds, rel=1 / 63)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-300, 2.0**14, 1e9, math.inf, math.nan])
def test_what_is_out_of_range_is_counted_at_the_edge(seconds: float) -> None:
    histogram = Histogram()
    histogram.record(seconds)
    assert histogram.count == 1
    assert math.isfinite(histogram.total)
    edge = 2.0**14 if not seconds < 1 else 2.0**-30
    assert histogram.quantile(1.0) == pytest.approx(edge, rel=0.04)


def test_quantiles_are_those_of_the_values() -> None:
    random = Random(7)
    values = sorted(random.lognormvariate(-5, 1.5) for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    shares = [0.99, 0.5, 0.9, 0.999, 1.0, 0.5]
    for share, found in zip(shares, histogram.quantiles(shares), strict=True):
        assert found == pytest.approx(values[math.ceil(share * len(values)) - 1], rel=0.03)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


def test_an_empty_histogram_answers_zero() -> None:
    assert Histogram().quantiles([0.5, 1.0]) == [0.0, 0.0]
    assert Histogram().mean == 0.0


@given(st.lists(durations, max_size=50), st.lists(durations, max_size=50))
def test_adding_snapshots_is_recording_everything_in_one(left: list[float], right: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for value in left:
        one.record(value)
    for value in right:
        other.record(value)
    for value in left + right:
        both.record(value)
    total = Histogram()
    total.add(one.snapshot())
    total.add(msgspec.json.decode(msgspec.json.encode(other.snapshot())))
    assert total.slots == both.slots
    assert total.total == pytest.approx(both.total)


@given(st.lists(durations, max_size=50))
def test_cumulative_counts_are_exact_at_powers_of_two(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    bounds = [2.0**-10, 2.0**-3, 1.0, 64.0]
    assert histogram.below(bounds) == [sum(value < bound for value in values) for bound in bounds]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


@given(st.text(max_size=20), st.text(max_size=20))
def test_prometheus_reads_back_what_was_counted(label: str, help: str) -> None:
    metrics = Metrics()
    metrics.counters("blocks_test_things_total", help, "kind").of(label).value += 3
    metrics.gauge("blocks_test_level", "A level.").value = -1.5
    metrics.histogram("blocks_test_wait_seconds", "Waits.").record(0.1)
    found = samples(metrics.render())
    assert found["blocks_test_things_total", frozenset({("kind", label)})] == 3
    assert found["blocks_test_level", frozenset()] == -1.5
    assert found["blocks_test_wait_seconds_count", frozenset()] == 1
    assert found["blocks_test_wait_seconds_sum", frozenset()] == 0.1
    assert found["blocks_test_wait_seconds_bucket", frozenset({("le", "0.125")})] == 1
    assert found["blocks_test_wait_seconds_bucket", frozenset({("le", "0.0625")})] == 0
    assert found["blocks_test_wait_seconds_bucket", frozenset({("le", "+Inf")})] == 1


def test_types_and_help_are_stated() -> None:
    metrics = Metrics()
    metrics.counter("blocks_test_things_total", "Things\nthat were.").add(2)
    metrics.gauge("blocks_test_level", "x", read=lambda: 5)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render())}
    assert families["blocks_test_things"].type == "counter"
    assert families["blocks_test_things"].documentation == "Things\nthat were."
    assert families["blocks_test_level"].samples[0].value == 5


def test_labels_that_nobody_bounded_end_in_other() -> None:
    family = Metrics().counters("blocks_test_things_total", "x", "who", limit=2)
    for name in "abcda":
        family.of(name).add()
    assert {values[0]: slot.value for values, slot in family.items()} == {"a": 2, "b": 1, "other": 2}
    family.forget("a")
    assert [values[0] for values, _ in family.items()] == ["b", "other"]


@pytest.mark.parametrize("name", ["Things_total", "things", "blocks_things", "blocks-things_total", ""])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="metric name"):
        Metrics().counter(name, "x")


def test_a_name_means_one_thing() -> None:
    metrics = Metrics()
    first = metrics.counters("blocks_test_things_total", "x", "who")
    assert metrics.counters("blocks_test_things_total", "x", "who") is first
    with pytest.raises(ConfigError, match="already a counter"):
        metrics.counters("blocks_test_things_total", "x", "what")
    with pytest.raises(ConfigError, match="values were given"):
        first.of("a", "b")
    with pytest.raises(ConfigError, match="label name"):
        metrics.counters("blocks_test_others_total", "x", "le")
    with pytest.raises(ConfigError, match="fold"):
        metrics.gauge("blocks_test_level", "x", fold="median")


def test_workers_add_up() -> None:
    snapshots = []
    for worker in (1, 2):
        metrics = Metrics()
        metrics.counters("blocks_test_things_total", "x", "who").of("a").value += worker
        metrics.counters("blocks_test_things_total", "x", "who").of(f"only-{worker}").value += 1
        metrics.gauge("blocks_test_open", "x").value = worker
        metrics.gauge("blocks_test_oldest_seconds", "x", fold="max").value = worker
        metrics.histogram("blocks_test_wait_seconds", "x").record(worker)
        snapshots.append(msgspec.json.decode(msgspec.json.encode(metrics.snapshot())))
    found = samples(render(merge(snapshots)))
    assert found["blocks_test_things_total", frozenset({("who", "a")})] == 3
    assert found["blocks_test_things_total", frozenset({("who", "only-2")})] == 1
    assert found["blocks_test_open", frozenset()] == 3
    assert found["blocks_test_oldest_seconds", frozenset()] == 2
    assert found["blocks_test_wait_seconds_count", frozenset()] == 2
    assert merge([]) == {}


def test_a_collector_is_asked_when_somebody_looks() -> None:
    metrics = Metrics()
    waits = Histogram()
    waits.record(1.5)
    numbers = iter([1.0, 2.0])

    def collect() -> list[Reading]:
        return [
            Reading("blocks_test_things_total", "counter", "x", (("who", "a"),), next(numbers)),
            Reading("blocks_test_things_total", "counter", "x", (("who", "b"),), 7),
            Reading("blocks_test_wait_seconds", "histogram", "x", (), waits),
        ]

    metrics.collect(collect)
    assert samples(metrics.render())["blocks_test_things_total", frozenset({("who", "a")})] == 1
    found = samples(metrics.render())
    assert found["blocks_test_things_total", frozenset({("who", "a")})] == 2
    assert found["blocks_test_wait_seconds_count", frozenset()] == 1


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (True, "1"), (1e30, "1e+30")]
)
def test_numbers_read_as_prometheus_writes_them(value: float, text: str) -> None:
    metrics = Metrics()
    metrics.gauge("blocks_test_level", "x").value = value
    assert metrics.render().splitlines()[-1] == f"blocks_test_level {text}"


def test_two_readings_of_one_series_are_added_up() -> None:
    metrics = Metrics()
    for number in (1, 2):
        metrics.collect(
            lambda number=number: [Reading("blocks_test_things_total", "counter", "x", (("a", "b"),), number)]
        )
    assert samples(metrics.render()) == {("blocks_test_things_total", frozenset({("a", "b")})): 3}
