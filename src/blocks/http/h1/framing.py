"""How a body's end is known, and the decoders that find it (RFC 9112 §6, §7).

A decoder is fed bytes and gives back those of the body; ``done`` says that the body is complete, ``rest`` what came behind it.
"""

from __future__ import annotations

import re
from typing import Protocol

from blocks.http.message import Section

from .fields import BadMessage, parse_trailers
from .limits import Limits


class Decoder(Protocol):
    """Finds the end of one body."""

    done: bool
    trailers: Section | None

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """(body bytes, what is left behind the end). Raises ``BadMessage``."""
        ...

    def eof(self) -> None:
        """The connection ended. Raises ``BadMessage`` when the body is not complete."""
        ...


class Length:
    """A body of so many bytes (RFC 9112 §6.2)."""

    __slots__ = ("done", "left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.trailers: Section | None = None

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """The body's part of ``data`` and the rest."""
        left = self.left
        size = len(data)
        if size < left:
            self.left = left - size
            return data, b""
        self.left = 0
        self.done = True
        if size == left:
            return data, b""
        return data[:left], data[left:]

    def eof(self) -> None:
        """A body cut short is an error that must be seen (RFC 9112 §8)."""
        if not self.done:
            raise BadMessage("truncated-body")


class UntilClose:
    """A response body that ends with its connection (RFC 9112 §6.3, rule 8)."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Section | None = None

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """All of it."""
        return data, b""

    def eof(self) -> None:
        """The end, as announced."""
        self.done = True


_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t\x20-\x7e]*)?)")
_CHUNK_LINE_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;[\t\x20-\x7e]*)?\r?")
_MAX_CHUNK = 1 << 60  # bytes; beyond it a length is an attack on somebody's integers
_LINE_LIMIT = 1024  # bytes of a chunk-size line that may wait for its end


class Chunked:
    """The chunked coding (RFC 9112 §7.1), strict: CRLF only, hex digits only, extensions bounded over the whole message."""

    __slots__ = ("_crlf", "_extensions", "_held", "_left", "_limits", "_tail", "done", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = b""  # the start of a line whose end has not come yet
        self._left = 0  # bytes of the present chunk that are still to come
        self._crlf = False  # the CRLF behind a chunk's data is due
        self._tail = False  # the last chunk was seen: trailers, if any, and the empty line are due
        self._extensions = 0
        self.done = False
        self.trailers: Section | None = None

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """The body bytes that are whole in ``data``, and what follows the end of the message."""
        if self._held:
            data = self._held + data
            self._held = b""
        parts: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._left:
                part = data[at : at + self._left] if at or size > self._left else data
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._crlf = not self._left
            elif self._crlf:
                if size - at < 2:
                    if data[at] != 13:
                        raise BadMessage("bad-chunk-end")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise BadMessage("bad-chunk-end")
                self._crlf = False
                at += 2
            elif self._tail:
                end = self._end_of_trailers(data, at)
                if end < 0:
                    break
                return b"".join(parts), data[end:]
            else:
                end = data.find(b"\n", at)
                if end < 0:
                    if size - at > _LINE_LIMIT:
                        raise BadMessage("long-chunk-line")
                    if _CHUNK_LINE_BEGUN.fullmatch(data, at) is None:
                        raise BadMessage("bad-chunk-size")
                    break
                self._size_line(data[at : end + 1])
                at = end + 1
        if at < size:
            self._held = data[at:]
        return (parts[0] if len(parts) == 1 else b"".join(parts)), b""

    def _size_line(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line, 0, len(line) - 2) if line.endswith(b"\r\n") else None
        if match is None:
            raise BadMessage("bad-chunk-size")
        self._extensions += len(match[2])
        if self._extensions > self._limits.extensions:
            raise BadMessage("chunk-extensions-too-long")
        self._left = int(match[1], 16)
        if self._left > _MAX_CHUNK:
            raise BadMessage("bad-chunk-size")
        self._tail = self._left == 0

    def _end_of_trailers(self, data: bytes, at: int) -> int:
        """Where the message ends, or -1 when that has not come yet."""
        if data[at : at + 2] == b"\r\n":
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > self._limits.trailers:
                raise BadMessage("trailers-too-long", 431)
            if data.count(b"\n", at) != data.count(b"\r\n", at):
                raise BadMessage("bare-lf")  # answered, not waited for: the empty line may look sent already
            return -1
        if end + 4 - at > self._limits.trailers:
            raise BadMessage("trailers-too-long", 431)
        self.trailers = parse_trailers(data[at : end + 4], self._limits)
        self.done = True
        return end + 4

    def eof(self) -> None:
        """The last chunk never came (RFC 9112 §8)."""
        if not self.done:
            raise BadMessage("truncated-body")
