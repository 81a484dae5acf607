"""The two readers: bytes in, heads and bodies out, one message after another. No I/O, any split of the bytes gives the same result.

``receive(data)``, then ``event()`` until it returns None. A head is parsed only when it is whole; its size is bounded. The reader
remembers the last header block of its connection: a block of the very same bytes (browsers and load generators repeat theirs) costs
a comparison instead of a parse, and whatever was computed from its ``Section`` is still there.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from blocks.http.message import Section

from .fields import BadMessage, Facts, check_host, parse_fields
from .framing import Chunked, Decoder, Length, UntilClose
from .limits import DEFAULT, Limits

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z0-9_-]{0,31}) ([!\"$-~][!-~]*) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_ANY_VERSION = re.compile(rb"[^\x00-\x20\x7f-\xff]+ [^\x00-\x20\x7f-\xff]+ HTTP/([0-9])\.([0-9])")
_VERSION = b"HTTP/1."
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ ")
_ABSOLUTE = re.compile(r"(?:http|https)://([^/?#@\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_methods = {
    name.encode(): name
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PURGE")
}


class Part:
    """Bytes of a body."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class End:
    """The message is complete; ``trailers`` came with it, or None."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Section | None = None) -> None:
        self.trailers = trailers


_END = End()


class RequestHead:
    """A request's head. ``version`` is 10 or 11; ``target`` in origin-form or ``*``; ``body`` says whether one follows."""

    __slots__ = ("body", "facts", "keep_alive", "method", "target", "version")

    def __init__(self, method: str, target: str, version: int, facts: Facts) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.facts = facts
        self.body = facts.chunked or bool(facts.length)
        self.keep_alive = not facts.close if version == 11 else facts.keep_alive and not facts.close


class ResponseHead:
    """A response's head; ``interim`` is true for 1xx but 101; ``body`` says whether one follows."""

    __slots__ = ("body", "facts", "interim", "keep_alive", "status", "version")

    def __init__(self, status: int, version: int, facts: Facts) -> None:
        self.status = status
        self.version = version
        self.facts = facts
        self.interim = status < 200 and status != 101
        self.body = False
        self.keep_alive = not facts.close if version == 11 else facts.keep_alive and not facts.close


H = TypeVar("H", RequestHead, ResponseHead)


class Reader(Generic[H]):
    """What both directions share: finding the head's end, the memo, the body. ``failed`` is set after a ``BadMessage``: read no more."""

    __slots__ = ("_blank", "_block", "_buffer", "_ended", "_facts", "_scanned", "decoder", "failed", "limits")

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self.limits = limits
        self.decoder: Decoder | None = None  # of the body that is being read
        self.failed = False
        self._buffer = b""
        self._scanned = 0  # the head's end does not begin before this place in the buffer
        self._ended = False
        self._blank = 0
        self._block = b""  # the last header block, and what it said; kept from its second sight on
        self._facts: Facts | None = None

    @property
    def buffered(self) -> int:
        """Bytes received and not yet given out."""
        return len(self._buffer)

    @property
    def closed(self) -> bool:
        """The peer has ended its side and nothing more will come of what was received."""
        return self._ended and self.decoder is None

    def receive(self, data: bytes) -> None:
        """Bytes from the peer. Nothing is looked at before ``event``."""
        self._buffer = self._buffer + data if self._buffer else data

    def whole(self) -> bytes | None:
        """The whole body, taken out, when its length is known and all of it is here; else None, and ``event`` gives it in parts."""
        decoder = self.decoder
        if type(decoder) is not Length:
            return None
        left = decoder.left
        buffer = self._buffer
        if len(buffer) == left:
            self._buffer = b""
        elif len(buffer) > left:
            self._buffer = buffer[left:]
            buffer = buffer[:left]
        else:
            return None
        self.decoder = None
        return buffer

    def rest(self) -> bytes:
        """Take out what was received and not yet given out: for a tunnel, after 101."""
        data, self._buffer = self._buffer, b""
        return data

    def eof(self) -> None:
        """The peer ended its side. Raises ``BadMessage`` when that cuts a message short (RFC 9112 §8)."""
        self._ended = True
        if self.decoder is not None:
            try:
                self.decoder.eof()
            except BadMessage:
                self.failed = True
                raise

    def event(self) -> H | Part | End | None:
        """The next head, part or end; None when more bytes are needed. Raises ``BadMessage``; then the connection is done for."""
        if self.failed:
            raise BadMessage("after-a-bad-message")
        try:
            decoder = self.decoder
            if decoder is None:
                return self._next_head() if self._buffer else None
            return self._next_of_body(decoder)
        except BadMessage:
            self.failed = True
            raise

    def _next_of_body(self, decoder: Decoder) -> Part | End | None:
        if not decoder.done:
            if not self._buffer:
                return None
            data, self._buffer = decoder.decode(self._buffer)
            if data:
                return Part(data)
            if not decoder.done:
                return None
        self.decoder = None
        return End(decoder.trailers) if decoder.trailers is not None else _END

    def _next_head(self) -> H | None:
        buffer = self._buffer
        if self._facts is not None:
            # The block of last time, whole: it ends with the only empty line in it, so that a match is a match to the end.
            line_end = buffer.find(b"\r\n")
            if line_end > 0 and buffer.startswith(self._block, line_end + 2):
                end = line_end + 2 + len(self._block)
                if end <= self.limits.head:
                    self._buffer = buffer[end:]
                    self._scanned = self._blank = 0
                    return self._repeated(buffer[:line_end], self._facts)
        if buffer[0] in b"\r\n" and not self._skip_blank():
            return None
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            if len(buffer) > self.limits.head:
                raise self._too_long(buffer)
            self._doubt(buffer)
            self._scanned = max(0, len(buffer) - 3)
            return None
        if end + 4 > self.limits.head:
            raise self._too_long(buffer)
        self._scanned = 0
        self._blank = 0
        line_end = buffer.find(b"\r\n")
        self._buffer = buffer[end + 4 :]
        return self._head(buffer[:line_end], buffer[line_end + 2 : end + 4] if line_end < end else b"\r\n")

    def _head(self, line: bytes, block: bytes) -> H:
        """A head of this start line and these field lines."""
        raise AssertionError("a reader knows its start line")

    def _repeated(self, line: bytes, facts: Facts) -> H:
        """A head whose field lines are those of last time."""
        raise AssertionError("a reader knows its start line")

    def _skip_blank(self) -> bool:
        """Empty lines before a start line (RFC 9112 §2.2), a bounded number. False: wait for more."""
        while self._buffer[:2] == b"\r\n":
            self._blank += 1
            if self._blank > self.limits.blank:
                raise BadMessage("blank-lines")
            self._buffer = self._buffer[2:]
        if self._buffer[:1] == b"\n" or (self._buffer[:1] == b"\r" and len(self._buffer) > 1):
            raise BadMessage("bad-start-line")
        return bool(self._buffer) and self._buffer != b"\r"

    def _doubt(self, buffer: bytes) -> None:
        """A head whose end has not come: refuse at once what can never become one, so that a bare LF is answered, not waited for."""
        at = buffer.find(b"\n", self._scanned)
        while at >= 0:
            if at == 0 or buffer[at - 1] != 13:
                raise BadMessage("bare-lf")
            at = buffer.find(b"\n", at + 1)
        if b"\x00" in buffer:
            raise BadMessage("nul")

        line_end = buffer.find(b"\r\n")
        self._doubt_line(buffer[: line_end if line_end >= 0 else len(buffer)], line_end >= 0)

    def _doubt_line(self, line: bytes, whole: bool) -> None:
        """A start line, or what has come of it: refuse what it can never become."""

    def _too_long(self, buffer: bytes) -> BadMessage:
        return BadMessage("head-too-long", 431)

    def _facts_of(self, block: bytes) -> Facts:
        """The block's facts. A block that comes a second time is kept, unless it begins something out of the ordinary."""
        facts = parse_fields(block, self.limits)
        ordinary = not (facts.chunked or facts.expects or facts.upgrade)
        self._facts = facts if ordinary and block == self._block else None
        self._block = block
        return facts


class RequestReader(Reader[RequestHead]):
    """Reads requests (RFC 9112 §3). A refusal carries the status to answer with."""

    __slots__ = ()

    def _head(self, line: bytes, block: bytes) -> RequestHead:
        if _REQUEST_LINE.fullmatch(line) is None:
            raise self._bad_line(line)  # before anything is said of the fields
        facts = self._facts_of(block)
        if facts.host is not None:
            check_host(facts.host, 11)
        return self._repeated(line, facts)

    def _repeated(self, line: bytes, facts: Facts) -> RequestHead:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise self._bad_line(line)
        name, raw, minor = match.groups()
        if len(raw) > self.limits.target:
            raise BadMessage("target-too-long", 414)
        version = 11 if minor == b"1" else 10
        if facts.host is None:
            check_host(None, version)
        method = _methods.get(name) or name.decode("ascii")
        target = raw.decode("ascii")
        if raw[0] != 47 or method == "CONNECT":
            target, facts = self._other_form(method, target, facts)
        if b"#" in raw:
            raise BadMessage("fragment-in-target")
        head = RequestHead(method, target, version, facts)
        if facts.chunked:
            if version == 10:
                raise BadMessage("coding-in-http-1.0")  # RFC 9112 §6.1: faulty framing
            self.decoder = Chunked(self.limits)
        elif facts.length:
            if self.limits.body is not None and facts.length > self.limits.body:
                raise BadMessage("body-too-large", 413)
            self.decoder = Length(facts.length)
        return head

    def _doubt_line(self, line: bytes, whole: bool) -> None:
        if whole and _REQUEST_LINE.fullmatch(line) is None:
            raise self._bad_line(line)

    def _bad_line(self, line: bytes) -> BadMessage:
        if len(line) > self.limits.target and line.count(b" ") >= 1:
            return BadMessage("target-too-long", 414)
        version = _ANY_VERSION.fullmatch(line)
        if version is not None and (version[1] != b"1" or version[2] not in b"01"):
            return BadMessage("version-not-supported", 505)
        if version is not None and _METHOD.match(line) and not line.split(b" ", 1)[0].isupper():
            return BadMessage("method-not-implemented", 501)  # methods are case-sensitive (RFC 9110 §9.1)
        return BadMessage("bad-request-line")

    def _other_form(self, method: str, target: str, facts: Facts) -> tuple[str, Facts]:
        """absolute-form becomes origin-form with its authority as Host (RFC 9112 §3.2.2); ``*`` is for OPTIONS; no tunnels by CONNECT."""
        if method == "CONNECT":
            raise BadMessage("connect-not-implemented", 501)
        if target == "*":
            if method != "OPTIONS":
                raise BadMessage("bad-target")
            return target, facts
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise BadMessage("bad-target")
        host = match[1].encode("ascii")
        check_host(host, 11)
        path = match[2] or ("*" if method == "OPTIONS" else "/")
        twin = Facts()
        for name in Facts.__slots__:
            setattr(twin, name, getattr(facts, name))
        twin.host = host
        pairs = facts.section.pairs
        twin.section = Section([(b"host", host), *[pair for pair in pairs if pair[0] != b"host"]])
        return ("/" + path if path[0] == "?" else path), twin

    def _too_long(self, buffer: bytes) -> BadMessage:
        line_end = buffer.find(b"\r\n")
        long_line = line_end < 0 or line_end > self.limits.target
        return BadMessage("target-too-long", 414) if long_line else BadMessage("head-too-long", 431)


class ResponseReader(Reader[ResponseHead]):
    """Reads the responses to requests that were sent: set ``method`` for each, as it decides whether a body follows (RFC 9112 §6.3)."""

    __slots__ = ("_interim", "_last", "_line", "method")

    def __init__(self, limits: Limits = DEFAULT) -> None:
        super().__init__(limits)
        self.method = "GET"
        self._interim = 0
        self._line = b""
        self._last: ResponseHead | None = (
            None  # the head of that line and the block of last time, when a length framed its body
        )

    @property
    def silent(self) -> bool:
        """No byte of the present response has come, no interim response either."""
        return not self._buffer and not self._interim

    def _repeated(self, line: bytes, facts: Facts) -> ResponseHead:
        last = self._last
        if last is not None and last.facts is facts and line == self._line and self.method != "HEAD":
            self._interim = 0
            if facts.length:
                self.decoder = Length(facts.length)
            return last
        head = self._decide(line, facts)
        if head.status >= 200 and head.status not in (204, 304) and facts.length is not None and self.method != "HEAD":
            self._line, self._last = line, head
        return head

    def _head(self, line: bytes, block: bytes) -> ResponseHead:
        return self._decide(line, self._facts_of(block))

    def _decide(self, line: bytes, facts: Facts) -> ResponseHead:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise BadMessage("bad-status-line")
        version = 11 if match[1] == b"1" else 10
        status = int(match[2])
        head = ResponseHead(status, version, facts)
        if head.interim:
            self._interim += 1
            if self._interim > self.limits.interim:
                raise BadMessage("too-many-interim")
            if facts.chunked:
                raise BadMessage("coding-without-body")
            return head
        self._interim = 0
        if facts.chunked and version == 10:
            raise BadMessage("coding-in-http-1.0")
        if self.method == "HEAD" or status in (204, 304) or status == 101:
            if facts.chunked and status in (101, 204):
                raise BadMessage("coding-without-body")  # RFC 9112 §6.1
            if status == 204 and facts.length:
                head.keep_alive = False  # a body is announced that must not be (RFC 9110 §8.6): it may yet come
            return head
        head.body = True
        if facts.chunked:
            self.decoder = Chunked(self.limits)
        elif facts.length is not None:
            head.body = facts.length > 0
            self.decoder = Length(facts.length) if facts.length else None
        else:
            self.decoder = UntilClose()
            head.keep_alive = False
        return head

    def _skip_blank(self) -> bool:
        raise BadMessage("bad-status-line")

    def _doubt_line(self, line: bytes, whole: bool) -> None:
        if not line.startswith(_VERSION[: len(line)]) or (whole and _STATUS_LINE.fullmatch(line) is None):
            raise BadMessage("bad-status-line")  # a mail server's greeting is answered for at once, not at the timeout
