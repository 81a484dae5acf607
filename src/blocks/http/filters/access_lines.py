"""A request's tuple as a line, JSON or Apache's combined format, with nothing that a client sent able to forge one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

Entry = tuple[float, str, str, str, int, int, int, float, Any, dict[Any, Any], "str | None"]
"""(wall time, client, method, target, version 10 or 11, status, bytes sent, seconds, Section, notes, error)."""

_SECRET = re.compile(
    r"([?&](?:[^=&]*(?:token|secret|passw|signature|api[-_.]?key|access[-_.]?key|credential|jwt|session)[^=&]*|key|sig|auth|code|pwd|sid)=)[^&#]+",
    re.IGNORECASE,
)
_HINTS = (
    "tok",
    "sec",
    "pas",
    "sig",
    "key",
    "cred",
    "jwt",
    "aut",
    "cod",
    "pwd",
    "sid",
    "ses",
)  # one of them is in every such name
MASK = "***"
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG = 4096  # characters of one value; a target may be 8 KiB
# Notes that filters and blocks leave in ``request.state`` and that an operator looks for; (key in the line, key in the notes).
NOTES = (
    ("id", "request_id"),
    ("upstream", "upstream"),
    ("tries", "tries"),
    ("cache", "cache"),
    ("route", "route"),
    ("consumer", "consumer"),
)
_NAMES = {note: name for name, note in NOTES}


def redacted(text: str) -> str:
    """A target or URL with ``***`` for what query parameters say that are named like secrets (token, secret, password, key, session …).

    >>> redacted("/orders?page=2&access_token=abc")
    '/orders?page=2&access_token=***'
    """
    at = text.find("?")
    if at < 0:
        return text
    query = text[at:].lower()
    for hint in _HINTS:  # most queries have none: a quarter of what the expression takes
        if hint in query:
            return _SECRET.sub(rf"\1{MASK}", text)
    return text


def _told(notes: dict[Any, Any]) -> dict[str, Any]:
    """What the notes say for a line. A note may be an object that says it when asked: its ``logged()`` gives the line's values."""
    found: dict[str, Any] = {}
    for key, note in notes.items():
        if key in _NAMES:
            found[_NAMES[key]] = note
        elif (logged := getattr(note, "logged", None)) is not None:
            found = {**found, **logged()} if found else logged()
    return found


def json_lines() -> Callable[[Sequence[Entry]], bytes]:
    """An encoder of entries into JSON lines, values as UTF-8, controls escaped as JSON escapes them."""
    import msgspec

    fields = [(name, str) for name in ("time", "client", "method", "host", "target", "protocol")]
    numbers = [("status", int), ("bytes", int), ("seconds", float)]
    more = [(name, Any, None) for name in ("agent", "referer", "error", *(name for name, _ in NOTES))]
    line = msgspec.defstruct("Line", [*fields, *numbers, *more], omit_defaults=True, gc=False)
    encode = msgspec.json.Encoder(enc_hook=str).encode_lines
    dates = _Texts(lambda at: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)))
    stamps = _Texts(lambda at: f"{dates.of(at // 1000)}.{at % 1000:03d}Z")

    def lines(entries: Sequence[Entry]) -> bytes:
        rows = []
        for at, client, method, target, version, status, sent, spent, section, notes, error in entries:
            host, agent, referer = section.derived.get(_shown) or _shown(section)
            row = line(
                stamps.of(int(at * 1000)), client, method, host, redacted(target if len(target) <= _LONG else target[:_LONG]),
                "HTTP/1.1" if version == 11 else "HTTP/1.0", status, sent, round(spent, 6), agent, referer, error,
            )  # fmt: skip
            if notes:
                for name, note in _told(notes).items():
                    setattr(row, name, note)
            rows.append(row)
        return encode(rows)

    return lines


def _shown(section: Any) -> tuple[str, str | None, str | None]:
    """Host, User-Agent and Referer, kept with the section: a connection repeats them."""
    index = section.index
    found = section.derived[_shown] = (
        _value(index, b"host"),
        _value(index, b"user-agent") or None,
        redacted(_value(index, b"referer")) or None,
    )
    return found


def combined_lines() -> Callable[[Sequence[Entry]], bytes]:
    """An encoder of entries into Apache's combined format; what is not printable ASCII, and " and \\, as \\xHH (nginx does so)."""

    def stamp(at: int) -> str:
        t = time.gmtime(at)
        return (
            f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
        )

    dates = _Texts(stamp)

    def lines(entries: Sequence[Entry]) -> bytes:
        rows = []
        for at, client, method, target, version, status, sent, _, section, notes, _ in entries:
            told = _told(notes) if notes else {}
            user = _safe(str(told["consumer"])).replace(" ", "_") if told.get("consumer") else "-"
            client = told.get("client") or client
            request = f"{method} {_safe(redacted(target))} HTTP/{'1.1' if version == 11 else '1.0'}" if method else "-"
            referer, agent = section.derived.get(_quoted) or _quoted(section)
            rows.append(
                f'{client or "-"} - {user} [{dates.of(int(at))}] "{request}" {status} {sent} "{referer}" "{agent}"\n'
            )
        return "".join(rows).encode("ascii", "backslashreplace")

    return lines


def _quoted(section: Any) -> tuple[str, str]:
    """Referer and User-Agent as the combined format has them, kept with the section."""
    index = section.index
    found = section.derived[_quoted] = (
        _safe(redacted(_value(index, b"referer"))) or "-",
        _safe(_value(index, b"user-agent")) or "-",
    )
    return found


class _Texts:
    """A moment as text, made once while it lasts."""

    __slots__ = ("_at", "_make", "_text")

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._at = -1
        self._text = ""

    def of(self, at: int) -> str:
        if at != self._at:
            self._at = at
            self._text = self._make(at)
        return self._text


def _value(index: dict[bytes, list[bytes]], name: bytes) -> str:
    values = index.get(name)
    return values[0][:_LONG].decode("latin-1") if values else ""


def _safe(text: str) -> str:
    if len(text) > _LONG:
        text = text[:_LONG]
    return (
        text
        if _UNSAFE.search(text) is None
        else _UNSAFE.sub(lambda match: "".join(f"\\x{byte:02X}" for byte in match[0].encode("utf-8")), text)
    )
