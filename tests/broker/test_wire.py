from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.broker.frames import (
    ACK,
    Ask,
    Closing,
    Deliver,
    Frame,
    Hello,
    Ping,
    Publish,
    Receipts,
    Settle,
    Subscribe,
)
from blocks.broker.wire import Encoder, Framer, ProtocolError, decode

counts = st.integers(0, 2**62)
texts = st.text(max_size=20)
headers = st.dictionaries(texts, texts, max_size=3)


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    payloads = draw(st.lists(st.binary(max_size=50), min_size=1, max_size=8))
    count = len(payloads)
    columns: dict[str, Any] = {}
    if draw(st.booleans()):
        columns["headers"] = draw(st.one_of(headers, st.lists(st.none() | headers, min_size=count, max_size=count)))
    if draw(st.booleans()):
        columns["key"] = draw(st.one_of(st.binary(), st.lists(st.none() | st.binary(), min_size=count, max_size=count)))
    if draw(st.booleans()):
        columns["producer"] = [draw(texts), 1, draw(counts)]
    topics = draw(st.one_of(texts, st.lists(texts, min_size=count, max_size=count)))
    return Publish(draw(counts), topics, payloads, columns, draw(st.booleans()))


frames: st.SearchStrategy[Frame] = st.one_of(
    publishes(),
    st.builds(Hello, counts, st.dictionaries(texts, counts)),
    st.builds(
        Receipts, st.just("fsync"), st.lists(st.tuples(counts, counts, st.just([]), st.just([])).map(list), max_size=4)
    ),
    st.builds(Subscribe, counts, texts, st.just({"group": "g"})),
    st.builds(Settle, counts, st.just(ACK), st.just([["a", 3, [1, 5]]]), st.none(), counts),
    st.builds(Ask, counts, texts, st.just({})),
    st.builds(Ping, counts),
    st.builds(Closing, texts, texts),
)


@given(st.lists(frames, max_size=6), st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    encoder = Encoder()
    stream = b"".join(map(encoder.encode, sent))
    framer = Framer()
    got: list[Frame] = []
    place = 0
    while place < len(stream):
        step = data.draw(st.integers(1, max(1, len(stream) - place)))
        got += [decode(body) for body in framer.receive(stream[place : place + step])]
        place += step
    assert got == sent
    assert framer.pending == 0


def test_a_stream_of_single_bytes_gives_the_frame() -> None:
    stream = Encoder().encode(Publish(1, "a", [b"x" * 1000], {"headers": {"a": "b"}}, False))
    framer = Framer()
    bodies = [decode(body) for byte in stream for body in framer.receive(bytes([byte]))]
    assert bodies == [Publish(1, "a", [b"x" * 1000], {"headers": {"a": "b"}}, False)]


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_random_bytes_are_frames_or_a_protocol_error_and_are_never_held_beyond_the_limit(data: bytes) -> None:
    framer = Framer(limit=100)
    try:
        for body in framer.receive(data):
            decode(body)
    except ProtocolError:
        return
    assert framer.pending <= 104


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.integers(-1, 20), st.lists(json_like, max_size=6))
def test_well_formed_msgpack_is_a_frame_or_a_protocol_error(code: int, fields: list[Any]) -> None:
    body = msgpack.packb([code, *fields])
    try:
        frame = decode(body)
    except ProtocolError:
        return
    assert decode(Encoder().encode(frame)[4:]) == frame


@given(publishes(), st.data())
def test_a_damaged_frame_is_a_frame_or_a_protocol_error(frame: Publish, data: st.DataObject) -> None:
    stream = bytearray(Encoder().encode(frame))
    place = data.draw(st.integers(4, len(stream) - 1))
    stream[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(bytes(stream[4:]))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        [2, 1, "a", [], {}, False],  # no message
        [2, 1, "a", ["text"], {}, False],  # a payload that is no bin
        [2, 1, ["a"], [b"1", b"2"], {}, False],  # fewer topics than messages
        [2, 1, "a", [b"1"], {"key": [b"1", b"2"]}, False],  # more keys than messages
        [2, 1, "a", [b"1"], {"colour": "red"}, False],  # a column that there is not
        [2, 1, "a", [b"1"], {"headers": {"a": 1}}, False],
        [2, -1, "a", [b"1"], {}, False],
        [7, 1, 0, [["a", 1, [1, 2, 3]]], None, 0],  # a range without its end
        [7, 1, 0, [["a", 1, [5, 2]]], None, 0],  # a range that ends before it begins
        [7, 1, 9, [], None, 0],  # a verb that there is not
        [99],
        [],
        {},
        5,
        msgpack.ExtType(4, b"xx"),
        [15, msgpack.Timestamp(0)],
    ],
)
def test_a_malformed_frame_is_refused_with_a_reason(fields: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(msgpack.packb(fields))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode(b"\x91" * 100_000 + b"\x01")


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_arrive() -> None:
    with pytest.raises(ProtocolError, match="1 to 100"):
        Framer(limit=100).receive(b"\x00\x00\x00\x65")
    with pytest.raises(ProtocolError):
        Framer(limit=100).receive(b"\x00\x00\x00\x00")


def test_a_run_has_one_offset_for_each_message_or_the_first() -> None:
    run = ["a", 5, [3, 9], [b"x", b"y"], {"time": 1.5, "attempt": [1, 2]}]
    frame = Deliver(1, [run])
    assert decode(Encoder().encode(frame)[4:]) == frame
    with pytest.raises(ProtocolError):
        decode(Encoder().encode(Deliver(1, [["a", 5, [3], *run[3:]]]))[4:])
