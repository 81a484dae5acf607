"""However the bytes are split, the result is the same; whatever they are, the end is a message, a refusal or a wait; h11 agrees with us."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.http.h1 import (
    BadMessage,
    End,
    Limits,
    Part,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
    request_head,
)
from blocks.http.h1.framing import Chunked
from blocks.http.h1.writer import CHUNKED, chunk, last_chunk

LIMITS = Limits(head=2048, target=512, fields=20, trailers=256, extensions=64)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def requests(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], bool]:
    """((method, target, fields, body, ended, trailers), …) and whether it ended in a refusal."""
    reader = RequestReader(LIMITS)
    out: list[list[object]] = []
    for piece in pieces:
        reader.receive(piece)
        try:
            while (event := reader.event()) is not None:
                if isinstance(event, RequestHead):
                    out.append(
                        [
                            event.method,
                            event.target,
                            tuple(event.facts.section.pairs),
                            event.keep_alive,
                            b"",
                            not event.body,
                            None,
                        ]
                    )
                elif isinstance(event, Part):
                    out[-1][4] += event.data  # type: ignore[operator]
                elif isinstance(event, End):
                    out[-1][5] = True
                    out[-1][6] = tuple(event.trailers.pairs) if event.trailers is not None else None
        except BadMessage:
            return [tuple(one) for one in out], True
    return [tuple(one) for one in out], False


def responses(pieces: list[bytes], method: str) -> tuple[list[tuple[object, ...]], bool]:
    reader = ResponseReader(LIMITS)
    reader.method = method
    out: list[list[object]] = []
    for piece in pieces:
        reader.receive(piece)
        try:
            while (event := reader.event()) is not None:
                if isinstance(event, ResponseHead):
                    out.append([event.status, tuple(event.facts.section.pairs), b"", not event.body])
                elif isinstance(event, Part):
                    out[-1][2] += event.data  # type: ignore[operator]
                else:
                    out[-1][3] = True
        except BadMessage:
            return [tuple(one) for one in out], True
    return [tuple(one) for one in out], False


# Pieces that mean something, put together in any order: most are nearly right, which is where parsers part.
_WORDS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"GET http://b/ HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n",
        b"Host: a\r\n", b"Host: b:80\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: x\r\nX: y\r\n", b"Expect: 100-continue\r\n",
        b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nT: x\r\n\r\n", b"5;a=b\r\n", b"X: y\r\n", b"0", b"\xff", b"A" * 600, b"X: " + b"a" * 300 + b"\r\n",
    ]
)  # fmt: skip
_HEAD = st.lists(
    st.sampled_from(
        [b"X: y\r\n", b"Accept: */*\r\n", b"Cookie: a=b\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n"]
    ),
    max_size=4,
).map(b"".join)
_GOOD = st.one_of(
    st.builds(lambda h: b"GET /a HTTP/1.1\r\nHost: a\r\n" + h + b"\r\n", _HEAD),
    st.builds(lambda h, b: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(b) + h + b"\r\n" + b, _HEAD, st.binary(max_size=40)),
    st.builds(
        lambda h, parts, t: b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + h + b"\r\n" + b"".join(chunk(p) for p in parts) + b"0\r\n" + t + b"\r\n",
        _HEAD,
        st.lists(st.binary(min_size=1, max_size=20), max_size=4),
        st.sampled_from([b"", b"T: x\r\n", b"T: x\r\nU: z\r\n"]),
    ),
)  # fmt: skip
_CUTS = st.lists(st.integers(0, 5000), max_size=12)


@settings(max_examples=300)
@given(st.one_of(st.lists(_GOOD, max_size=5), st.lists(_WORDS, max_size=12)).map(b"".join), _CUTS)
def test_requests_are_the_same_however_they_are_split(data: bytes, cuts: list[int]):
    whole = requests([data])
    assert requests(split(data, cuts)) == whole
    assert requests([data[at : at + 1] for at in range(len(data))]) == whole


@settings(max_examples=300)
@given(st.lists(_WORDS, max_size=12).map(b"".join), _CUTS, st.sampled_from(["GET", "HEAD"]), st.booleans())
def test_responses_are_the_same_however_they_are_split(data: bytes, cuts: list[int], method: str, headed: bool):
    if headed:
        data = b"HTTP/1.1 200 OK\r\n" + data
    whole = responses([data], method)
    assert responses(split(data, cuts), method) == whole
    assert responses([data[at : at + 1] for at in range(len(data))], method) == whole


@settings(max_examples=300)
@given(
    st.one_of(
        st.lists(st.sampled_from([b"5\r\nhello\r\n", b"5", b"\r\n", b"\r", b"\n", b"0\r\n", b"hello", b";a=b", b"X: y\r\n", b"ffff", b" ", b"-"]), max_size=10).map(b"".join),
        st.binary(max_size=60),
    ),
    _CUTS,
)  # fmt: skip
def test_chunks_are_the_same_however_they_are_split(data: bytes, cuts: list[int]):
    def decode(pieces: list[bytes]) -> object:
        decoder, body = Chunked(LIMITS), b""
        for number, piece in enumerate(pieces):
            try:
                part, rest = decoder.decode(piece)
            except BadMessage:
                return "bad"
            body += part
            if decoder.done:
                return body, rest + b"".join(pieces[number + 1 :]), decoder.trailers.pairs if decoder.trailers else None
        return body, "more"

    assert decode(split(data, cuts)) == decode([data]) == decode([data[at : at + 1] for at in range(len(data))])


@settings(max_examples=300)
@given(st.binary(max_size=4000), st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_never_kept_beyond_the_limit(data: bytes, more: bytes):
    for reader in (RequestReader(LIMITS), ResponseReader(LIMITS)):
        try:
            for piece in (data, more):
                reader.receive(piece)
                while reader.event() is not None:
                    pass
                assert reader.decoder is not None or reader.buffered <= LIMITS.head
        except BadMessage as bad:
            status = bad.status
        else:
            status = 400
        assert status in (400, 413, 414, 417, 431, 501, 505)


@settings(max_examples=200)
@given(st.lists(_GOOD, min_size=1, max_size=4))
def test_what_is_read_and_written_again_is_one_request_each_to_h11(messages: list[bytes]):
    """Read by us, written by us, read by h11: as many requests as there were, with the same bodies."""
    read, refused = requests([b"".join(messages)])
    assert not refused
    assert len(read) == len(messages)
    wire = b""
    assert all(ended for _, _, _, _, _, ended, _ in read)
    reader = RequestReader(LIMITS)
    reader.receive(b"".join(messages))
    for method, target, _, _, body, _, trailers in read:
        while not isinstance(head := reader.event(), RequestHead):
            pass
        framing = CHUNKED if trailers is not None else b"Content-Length: %d\r\n" % len(body)  # type: ignore[arg-type]
        wire += request_head(method, target, head.facts.section, framing)  # type: ignore[arg-type]
        wire += ((chunk(body) if body else b"") + last_chunk(None)) if trailers is not None else body  # type: ignore[arg-type, operator]
    second = h11.Connection(h11.SERVER)
    second.receive_data(wire)
    for _, target, _, _, body, _, _ in read:
        event = second.next_event()
        assert isinstance(event, h11.Request)
        assert event.target.decode() == target
        got = b""
        while not isinstance(event := second.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            got += event.data
        assert got == body
        second.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        second.send(h11.EndOfMessage())
        second.start_next_cycle()
    assert second.trailing_data[0] == b""


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_whole_takes_a_body_only_when_all_of_it_is_there(size: int):
    reader = RequestReader()
    reader.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size - 1))
    assert isinstance(reader.event(), RequestHead)
    assert reader.whole() is None
    reader.receive(b"x" + b"GET")
    assert reader.whole() == b"x" * size
    assert reader.rest() == b"GET"
