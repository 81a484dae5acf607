"""A block of field lines, as received, into a ``Section`` and what it says about framing — or a refusal.

llhttp (through httptools) is the tokenizer, in its strict mode: no obs-fold, no bare CR or LF, no control characters, no space
before the colon. What the fields mean is decided here, by RFC 9110 and 9112, and stricter where proxies have been attacked:
Content-Length and Transfer-Encoding together, a repeated or listed length, any coding but one final ``chunked`` are all refused.
The parser is given the fields after a neutral request line of our own, so that one function serves requests, responses and trailers.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httptools

from blocks.http.message import Pair, Section

from .limits import Limits


class BadMessage(Exception):
    """The bytes are no acceptable HTTP/1 message. ``status`` tells a client so; ``reason`` is a short constant for logs."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


# Between two connections only (RFC 9110 §7.6.1, and Go's ReverseProxy list): never passed on.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding upgrade http2-settings".split()
)
# Never taken out because Connection lists them: they frame or route the message, or protect the one behind (RFC 9110 §7.6.1, §7.2).
_NOT_CONNECTION_OPTIONS = frozenset([b"host", b"content-length", b"transfer-encoding"])
# Fields that mean something here. What is not in it is passed on unread.
_KNOWN = HOP_BY_HOP | {b"content-length", b"host", b"expect"}
# CGI and WSGI servers read content_length as Content-Length: a twin of a field that frames or routes is refused.
_TWINS = frozenset(name.replace(b"-", b"_") for name in _KNOWN if b"-" in name)
_MEANT = _KNOWN | _TWINS
# Trailers may not frame, route, authenticate or change how the message is handled (RFC 9110 §6.5.1).
_NOT_TRAILERS = _KNOWN | frozenset(
    b"""authorization cache-control content-encoding content-range content-type cookie forwarded if-match if-modified-since if-none-match
    if-range if-unmodified-since max-forwards pragma range set-cookie trailer via x-forwarded-for x-forwarded-host x-forwarded-proto
    age date expires location retry-after vary warning www-authenticate""".split()
)

_PORT = rb"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_HOST = re.compile(
    rb"(?:\[(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z_](?:[0-9A-Za-z._-]{0,253}[0-9A-Za-z_.])?)"
    + _PORT
)
_TOKENS = re.compile(rb"[ \t]*,[ \t]*")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PREFIX = b"POST / HTTP/1.1\r\n"


class Facts:
    """What a head's fields say: the ``section`` to hand on, and what concerns this connection only.

    ``length`` is Content-Length or None; ``chunked`` whether that coding frames the body. ``close`` and ``keep_alive`` are the
    Connection options; ``upgrade`` is the protocol offered, lower-case, when Connection lists it; ``expects`` is 100-continue.
    ``host`` is the one Host value or None. ``te_trailers`` says that the sender takes trailers.
    """

    __slots__ = ("chunked", "close", "expects", "host", "keep_alive", "length", "section", "te_trailers", "upgrade")

    def __init__(self) -> None:
        self.section: Section = _EMPTY
        self.length: int | None = None
        self.chunked = False
        self.close = False
        self.keep_alive = False
        self.upgrade = ""
        self.expects = False
        self.host: bytes | None = None
        self.te_trailers = False


_EMPTY = Section([])


class _Lines:
    """llhttp's callbacks. They are functions in slots and not methods: that saves a tenth of the parse."""

    __slots__ = ("on_header", "on_headers_complete")

    def __init__(self, on_header: Callable[[bytes, bytes], None], on_headers_complete: Callable[[], None]) -> None:
        self.on_header = on_header
        self.on_headers_complete = on_headers_complete


def _tokenize(block: bytes, limits: Limits) -> list[Pair]:
    pairs: list[Pair] = []
    complete: list[None] = []
    append = pairs.append
    lines = _Lines(lambda name, value: append((name.lower(), value)), lambda: complete.append(None))
    try:
        httptools.HttpRequestParser(lines).feed_data(_PREFIX + block)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise _refusal(str(error)) from None
    if not complete:
        raise BadMessage("bad-field-line")
    if len(pairs) > limits.fields:
        raise BadMessage("too-many-fields", 431)
    if b" \r\n" in block or b"\t\r\n" in block:  # llhttp leaves the white space behind a value (RFC 9112 §5.1)
        return [(name, value.strip(b" \t")) for name, value in pairs]
    return pairs


def _refusal(said: str) -> BadMessage:
    """llhttp's words as a constant of ours; each is a 400 but a coding that nobody knows (RFC 9112 §6.1)."""
    if "Content-Length" in said:
        return BadMessage("bad-content-length")
    if "Transfer-Encoding" in said:
        return BadMessage("bad-transfer-encoding")
    return BadMessage("bad-field-line")


def parse_fields(block: bytes, limits: Limits) -> Facts:
    """The facts of a head's field lines: ``block`` ends with the empty line. Raises ``BadMessage``."""
    pairs = _tokenize(block, limits)
    facts = Facts()
    special = False
    listed: list[bytes] = []
    upgrade = te = b""
    for name, value in pairs:
        if name not in _MEANT:
            continue
        if name == b"host":
            if facts.host is not None:
                raise BadMessage("repeated-host")
            facts.host = value
            continue
        if name == b"content-length":
            if facts.length is not None or not value.isdigit() or len(value) > 18:
                raise BadMessage("bad-content-length")
            facts.length = int(value)
            continue
        if name == b"expect":
            if value.lower() != b"100-continue" or facts.expects:
                raise BadMessage("unknown-expectation", 417)
            facts.expects = True
            special = True
            continue
        special = True
        if name in _TWINS:
            raise BadMessage("ambiguous-field-name")
        if name == b"connection":
            listed.extend(_TOKENS.split(value.lower()))
        elif name == b"transfer-encoding":
            _transfer_encoding(facts, value)
        elif name == b"upgrade":
            upgrade = upgrade + b"," + value if upgrade else value
        elif name == b"te":
            te = value
    if facts.chunked and facts.length is not None:
        raise BadMessage("length-and-coding")
    if special:
        pairs = _end_to_end(facts, pairs, listed, upgrade, te)
    facts.section = Section(pairs)
    return facts


def _transfer_encoding(facts: Facts, value: bytes) -> None:
    """RFC 9112 §6.1, §6.3: one coding, and that is chunked; anything else leaves the framing in doubt."""
    if facts.chunked:
        raise BadMessage("bad-transfer-encoding")
    if value.lower() != b"chunked":
        known = _TOKENS.split(value.lower())
        unknown = (
            known[-1] == b"chunked"
            and known.count(b"chunked") == 1
            and all(_TOKEN.fullmatch(coding) for coding in known)
        )
        raise BadMessage("unsupported-transfer-encoding", 501) if unknown else BadMessage("bad-transfer-encoding")
    facts.chunked = True


def _end_to_end(facts: Facts, pairs: list[Pair], listed: list[bytes], upgrade: bytes, te: bytes) -> list[Pair]:
    """Take out what concerns this connection only (RFC 9110 §7.6.1), noting what it said."""
    for option in listed:
        if option and not _TOKEN.fullmatch(option):
            raise BadMessage("bad-connection-option")
    options = frozenset(listed)
    facts.close = b"close" in options
    facts.keep_alive = b"keep-alive" in options
    if upgrade and b"upgrade" in options:
        facts.upgrade = upgrade.lower().decode("latin-1")
    facts.te_trailers = b"trailers" in _TOKENS.split(te.lower())
    out = (HOP_BY_HOP | options) - _NOT_CONNECTION_OPTIONS | {b"transfer-encoding", b"expect"}
    return [pair for pair in pairs if pair[0] not in out]


def parse_trailers(block: bytes, limits: Limits) -> Section:
    """A trailer section; ``block`` ends with the empty line. A field that may not be a trailer is left out (RFC 9110 §6.5.1)."""
    pairs = _tokenize(block, limits)
    for name, _ in pairs:
        if name in (b"content-length", b"transfer-encoding", b"host", b"connection"):
            raise BadMessage("framing-in-trailers")
    return Section([pair for pair in pairs if pair[0] not in _NOT_TRAILERS])


def check_host(host: bytes | None, version: int) -> None:
    """Exactly one, valid and not empty, for HTTP/1.1 (RFC 9112 §3.2); HTTP/1.0 may have none."""
    if host is None:
        if version >= 11:
            raise BadMessage("no-host")
    elif not _HOST.fullmatch(host):
        raise BadMessage("bad-host")
