import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.errors import ConfigError
from blocks.core.quantities import Rate, rate, seconds, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30s", 30.0), ("250ms", 0.25), ("1h30m", 5400.0), ("1.5", 1.5), ("0", 0.0), ("2m", 120.0), ("2min", 120.0), ("1d", 86400.0), ("1w", 604800.0),
        ("5us", 5e-6), ("5µs", 5e-6), (" 3s ", 3.0), ("1h 30m", 5400.0), (3, 3.0), (0.5, 0.5), (0, 0.0),
    ],
)  # fmt: skip
def test_durations(text: object, value: float):
    assert seconds(text) == pytest.approx(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "soon",
        "-1s",
        "1x",
        "s1",
        "1s2",
        "1,5s",
        "1..5s",
        "--",
        "1e3s",
        "٣s",
        True,
        None,
        -1,
        math.inf,
        math.nan,
        [],
        b"1s",
    ],
)
def test_what_is_no_duration_says_how_to_write_one(text: object):
    with pytest.raises(ConfigError, match="is not a duration"):
        seconds(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1024", 1024), ("64KiB", 65536), ("64k", 65536), ("10kB", 10_000), ("1.5MiB", 1572864), ("4GiB", 4 << 30), ("1G", 1 << 30), ("1 MB", 10**6), ("5B", 5), (7, 7), ("1TiB", 1 << 40)],
)  # fmt: skip
def test_sizes(text: object, value: int):
    assert size(text) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "big", "-1", "1XiB", "1 2", "KiB", True, None, -1, math.inf, math.nan])
def test_what_is_no_size_says_how_to_write_one(text: object):
    with pytest.raises(ConfigError, match="is not a size"):
        size(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("100/s", 100), ("5/10s", 0.5), ("60/m", 1), ("3600/hour", 1), ("86400/day", 1), ("500B/s", 500), ("2MiB/s", 2 << 20), ("1.5/s", 1.5), ("10 / min", 1 / 6), (Rate(1, 2), 0.5)],
)  # fmt: skip
def test_rates(text: object, per_second: float):
    assert rate(text).per_second == pytest.approx(per_second)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "100", "/s", "100/", "100/x", "-1/s", "5/0s", "100 per s", None, 100])
def test_what_is_no_rate_says_how_to_write_one(text: object):
    with pytest.raises(ConfigError, match="is not a rate"):
        rate(text)  # type: ignore[arg-type]


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_clear_error(text: str):
    for read in (seconds, size, rate):
        try:
            read(text)
        except ConfigError:
            pass


@given(st.integers(0, 10**9))
def test_numbers_stay_what_they_are(number: int):
    assert seconds(number) == seconds(str(number)) == number
    assert size(number) == size(str(number)) == number
