"""A frame is a length and one msgpack array; messages travel in columns, their payloads in ONE list of bin.

    frame = u32 length of the rest, big endian | msgpack [code, field, field, …]

Unpacking 100 messages as columns costs 0.02 µs each; as 100 little arrays 0.5 µs each. A column is one value that
holds for every message of the frame, or a list with one for each. Nothing here knows a socket: ``Framer.receive`` cuts
bytes into bodies, ``decode`` makes a body a frame, and ``Encoder.encode`` a frame bytes. Extension types, deep nesting
and lengths beyond the limits are a ``ProtocolError`` and never an allocation of the peer's choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from blocks.core.errors import BlocksError

from .frames import (
    ACK,
    DECLINE,
    Answer,
    Ask,
    Closing,
    Columns,
    Credit,
    Deliver,
    Ended,
    Frame,
    Hello,
    Ping,
    Pong,
    Publish,
    Receipts,
    Refused,
    Settle,
    Settled,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
)

VERSION = 1
MAX_FRAME = 16 * 1024 * 1024  # twice NATS' largest advised payload (8 MiB), so that a message of 8 MiB has room
MAX_HELLO = 16 * 1024  # all that a peer may send before it is known
MAX_COUNT = 65_536  # messages, ranges or names in one frame
MAX_TEXT = 1024 * 1024  # bytes of one header value (a dead letter's history), name or reason


class ProtocolError(BlocksError):
    """The peer sent bytes that are not of this protocol, or more than was agreed; the connection ends with it."""


def _only(values: Any, *kinds: type) -> bool:
    return set(map(type, values)) <= set(kinds)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return (type(value) is float and abs(value) < 1e15) or (type(value) is int and abs(value) < 2**53)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_options(value: Any) -> bool:
    return type(value) is dict and _only(value, str)


def _is_names(value: Any) -> bool:
    return type(value) is str or (type(value) is list and _only(value, str))


def _is_payloads(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= MAX_COUNT and _only(value, bytes)


def _is_offsets(value: Any) -> bool:
    return _is_count(value) or (type(value) is list and _only(value, int))


def _is_ranges(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) % 2 == 0
        and _only(value, int)
        and all(value[i] <= value[i + 1] for i in range(0, len(value), 2))
    )


def _is_run(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 5
        and _is_text(value[0])
        and _is_count(value[1])
        and _is_offsets(value[2])
        and _is_payloads(value[3])
        and _is_columns(value[4])
        and (type(value[2]) is int or len(value[2]) == len(value[3]))
        and _are_of_length(value[4], len(value[3]))
    )


def _is_runs(value: Any) -> bool:
    return type(value) is list and all(map(_is_run, value))


def _is_settlement(value: Any) -> bool:
    return (
        type(value) is list and len(value) == 3 and _is_text(value[0]) and _is_count(value[1]) and _is_ranges(value[2])
    )


def _is_settlements(value: Any) -> bool:
    return type(value) is list and all(map(_is_settlement, value))


def _is_verb(value: Any) -> bool:
    return type(value) is int and ACK <= value <= DECLINE


def _is_argument(value: Any) -> bool:
    return value is None or _is_text(value) or _is_number(value)


def _is_value(value: Any) -> bool:
    return True


def _is_entry(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 4
        and _is_count(value[0])
        and _is_offsets(value[1])
        and _only(value[2:], list)
    )


def _is_entries(value: Any) -> bool:
    return type(value) is list and all(map(_is_entry, value))


def _is_headers(value: Any) -> bool:
    return type(value) is dict and _only(value, str) and _only(value.values(), str)


def _is_key(value: Any) -> bool:
    return type(value) is bytes


def _is_producer(value: Any) -> bool:
    return (
        type(value) is list and len(value) == 3 and _is_text(value[0]) and _is_count(value[1]) and _is_count(value[2])
    )


_COLUMNS: dict[str, Callable[[Any], bool]] = {
    "headers": _is_headers,
    "key": _is_key,
    "id": _is_text,
    "ttl": _is_number,
    "delay": _is_number,
    "at": _is_number,
    "reply": _is_text,
    "time": _is_number,
    "attempt": _is_count,
}


def _is_columns(value: Any) -> bool:
    if type(value) is not dict:
        return False
    for name, column in value.items():
        check = _COLUMNS.get(name)
        if check is None:
            if name != "producer" or not _is_producer(column):
                return False
        elif type(column) is list:
            if not all(one is None or check(one) for one in column):
                return False
        elif not check(column):
            return False
    return True


# The protocol in one table: a frame's code is its place, and each field has the question that it must answer yes to.
_TABLE: tuple[tuple[type[Any], tuple[Callable[[Any], bool], ...]], ...] = (
    (Hello, (_is_count, _is_options)),
    (Welcome, (_is_count, _is_options)),
    (Publish, (_is_count, _is_names, _is_payloads, _is_columns, _is_flag)),
    (Receipts, (_is_text, _is_entries)),
    (Subscribe, (_is_count, _is_text, _is_options)),
    (Subscribed, (_is_count, _is_options)),
    (Deliver, (_is_count, _is_runs)),
    (Settle, (_is_count, _is_verb, _is_settlements, _is_argument, _is_count)),
    (Credit, (_is_count, _is_count, _is_count)),
    (Settled, (_is_count, _is_count)),
    (Unsubscribe, (_is_count,)),
    (Ended, (_is_count, _is_text, _is_text)),
    (Ask, (_is_count, _is_text, _is_options)),
    (Answer, (_is_count, _is_value)),
    (Refused, (_is_count, _is_text, _is_text)),
    (Ping, (_is_count,)),
    (Pong, (_is_count,)),
    (Closing, (_is_text, _is_text)),
)
_CODES = {row[0]: code for code, row in enumerate(_TABLE)}


def decode(body: bytes | memoryview) -> Frame:
    """The frame that ``body`` is, every field of its type; else ``ProtocolError``."""
    try:
        fields = msgpack.unpackb(
            body,
            use_list=True,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            max_str_len=MAX_TEXT,
            max_array_len=MAX_COUNT,
            max_map_len=MAX_COUNT,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a frame of {len(body)} bytes is not msgpack within the limits: {error}") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int or not 0 <= fields[0] < len(_TABLE):
        raise ProtocolError("a frame begins with a code that this version does not have")
    kind, checks = _TABLE[fields[0]]
    if len(fields) != len(checks) + 1:
        raise ProtocolError(f"a {kind.__name__} frame has {len(checks)} fields, not {len(fields) - 1}")
    for place, check in enumerate(checks, 1):
        if not check(fields[place]):
            raise ProtocolError(f"the field {kind._fields[place - 1]} of a {kind.__name__} frame is malformed")
    frame: Frame = kind._make(fields[1:])
    if type(frame) is Publish:
        count = len(frame.payloads)
        if type(frame.topics) is list and len(frame.topics) != count:
            raise ProtocolError(f"a Publish frame of {count} messages has {len(frame.topics)} topics")
        if not _are_of_length(frame.columns, count):
            raise ProtocolError(f"a Publish frame of {count} messages has a column of another length")
    return frame


def _are_of_length(columns: Columns, count: int) -> bool:
    """Whether every column that is a list has one value for each message."""
    return all(
        type(column) is not list or len(column) == count or name == "producer" for name, column in columns.items()
    )


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ProtocolError("a frame has no msgpack extension types")


class Encoder:
    """Makes frames bytes, with one msgpack buffer that is used again; one for each thread that encodes."""

    __slots__ = ("_packer",)

    def __init__(self) -> None:
        self._packer = msgpack.Packer(autoreset=False, buf_size=64 * 1024)

    def encode(self, frame: Frame) -> bytes:
        """The bytes of ``frame``, ready to be sent."""
        packer = self._packer
        try:
            packer.pack((_CODES[type(frame)], *frame))
            with packer.getbuffer() as body:
                return b"".join((len(body).to_bytes(4, "big"), body))
        finally:
            packer.reset()


class Framer:
    """Cuts a stream of bytes into frame bodies, whatever the pieces in which they arrive.

    Pieces are kept in a list and joined once, when the frame that they make is whole; at most ``limit`` bytes and one
    piece are ever held. A body may be a view of the piece that was given.
    """

    __slots__ = ("_have", "_pieces", "_want", "limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._pieces: list[bytes | memoryview] = []
        self._have = 0
        self._want = 4

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not whole yet."""
        return self._have

    def receive(self, data: bytes) -> list[memoryview]:
        """The bodies that are whole now, in order. Raises ``ProtocolError`` at the first length over the limit."""
        have = self._have + len(data)
        if have < self._want:
            self._pieces.append(data)
            self._have = have
            return []
        if self._pieces:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces = []
        return self._cut(memoryview(data))

    def _cut(self, view: memoryview) -> list[memoryview]:
        bodies = []
        place, end = 0, len(view)
        want = 4
        while end - place >= 4:
            length = int.from_bytes(view[place : place + 4], "big")
            if not 0 < length <= self.limit:
                raise ProtocolError(f"a frame of {length} bytes, where 1 to {self.limit} are allowed")
            want = length + 4
            if end - place < want:
                break
            bodies.append(view[place + 4 : place + want])
            place += want
            want = 4
        self._want = want
        self._have = end - place
        if self._have:
            rest = view[place:]
            # A short rest is copied, so that it does not keep a whole piece of 256 KiB for each idle connection.
            self._pieces.append(rest if self._have > end // 2 else bytes(rest))
        return bodies
