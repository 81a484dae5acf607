"""Structured field values, parsed as strictly as RFC 9651 §4.2 says: one wrong byte and the whole field is no field.

Bare items map to Python: Integer ``int``, Decimal ``float``, Boolean ``bool``, Byte Sequence ``bytes``, String ``str``,
Token ``Token``, Date ``Date``, Display String ``Display``. A member is ``Item`` or ``Inner``; both carry parameters.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from blocks.core.errors import BlocksError


class NotStructured(BlocksError, ValueError):
    """A field value is not of the type that it should be (RFC 9651 §4.2): ignore the field."""


class Token(str):
    """A Token (RFC 9651 §3.3.4), to be told from a String."""

    __slots__ = ()


class Display(str):
    """A Display String (RFC 9651 §3.3.8)."""

    __slots__ = ()


class Date(int):
    """A Date (RFC 9651 §3.3.7), seconds since 1970-01-01 UTC."""


Bare = bool | int | float | str | bytes
Parameters = dict[str, Bare]


class Item(NamedTuple):
    """A bare item and its parameters."""

    value: Bare
    parameters: Parameters


class Inner(NamedTuple):
    """An inner list and its parameters."""

    items: list[Item]
    parameters: Parameters


Member = Item | Inner
T = TypeVar("T")

_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d*))?")
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES = re.compile(r":([A-Za-z0-9+/=]*):")
_DISPLAY = re.compile(r'%"((?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_MEMBERS = (
    1024  # members of one list or dictionary, and parameters of one item: RFC 9651 asks for at least that (§3.1, §3.2)
)


class _Parser:
    """Reads one field value from left to right; ``at`` is where it stands."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str) -> NotStructured:
        return NotStructured(f"{what} at character {self.at} of {self.text[:200]!r} (RFC 9651 §4.2)")

    def skip(self, what: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in what:
            self.at += 1

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self.fail(f"no {what}")
        self.at = found.end()
        return found

    def next_member(self) -> bool:
        """Past the comma to the next member (§4.2.1); False at the end."""
        self.skip(" \t")
        if self.at == len(self.text):
            return False
        if self.peek() != ",":
            raise self.fail("no comma")
        self.at += 1
        self.skip(" \t")
        if self.at == len(self.text):
            raise self.fail("a comma and nothing behind it")
        return True

    def list(self) -> list[Member]:
        members: list[Member] = []
        more = self.at < len(self.text)
        while more:
            members.append(self.member())
            if len(members) > _MEMBERS:
                raise self.fail("too many members")
            more = self.next_member()
        return members

    def dictionary(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        more = self.at < len(self.text)
        while more:
            key = self.match(_KEY, "key")[0]
            if self.peek() == "=":
                self.at += 1
                member = self.member()
            else:
                member = Item(True, self.parameters())
            members.pop(key, None)  # the last one counts, in the last one's place (§4.2.2)
            members[key] = member
            if len(members) > _MEMBERS:
                raise self.fail("too many members")
            more = self.next_member()
        return members

    def member(self) -> Member:
        return self.inner() if self.peek() == "(" else self.item()

    def inner(self) -> Inner:
        self.at += 1
        items: list[Item] = []
        while True:
            self.skip(" ")
            if self.peek() == ")":
                self.at += 1
                return Inner(items, self.parameters())
            items.append(self.item())
            if len(items) > _MEMBERS:
                raise self.fail("too many items")
            if self.peek() not in (" ", ")"):
                raise self.fail("no space between items")

    def item(self) -> Item:
        return Item(self.bare(), self.parameters())

    def parameters(self) -> Parameters:
        found: Parameters = {}
        while self.peek() == ";":
            self.at += 1
            self.skip(" ")
            key = self.match(_KEY, "parameter key")[0]
            value: Bare = True
            if self.peek() == "=":
                self.at += 1
                value = self.bare()
            found.pop(key, None)
            found[key] = value
            if len(found) > _MEMBERS:
                raise self.fail("too many parameters")
        return found

    def bare(self) -> Bare:
        read = _READERS.get(self.peek())
        if read is not None:
            return read(self)
        if _TOKEN.match(self.text, self.at):
            return Token(self.match(_TOKEN, "token")[0])
        raise self.fail("no value")

    def number(self) -> int | float:
        found = self.match(_NUMBER, "number")
        sign, whole, part = found[1], found[2], found[3]
        if part is None:
            if len(whole) > 15:
                raise self.fail("an integer of more than 15 digits")
            return int(sign + whole)
        if len(whole) > 12 or not 1 <= len(part) <= 3:
            raise self.fail("a decimal of more than 12 digits, or not 1 to 3 behind the point")
        return float(f"{sign}{whole}.{part}")

    def string(self) -> str:
        return re.sub(r"\\(.)", r"\1", self.match(_STRING, "string")[1])

    def bytes(self) -> bytes:
        coded = self.match(_BYTES, "byte sequence")[1]
        try:
            return base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
        except ValueError:
            raise self.fail("no base64") from None

    def boolean(self) -> bool:
        self.at += 2
        value = self.text[self.at - 1 : self.at]
        if value not in ("0", "1"):
            raise self.fail("no boolean")
        return value == "1"

    def date(self) -> Date:
        self.at += 1
        value = self.number()
        if isinstance(value, float):
            raise self.fail("a date with a fraction")
        return Date(value)

    def display(self) -> Display:
        coded = self.match(_DISPLAY, "display string")[1]
        raw = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), coded.encode("ascii"))
        try:
            return Display(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise self.fail("no UTF-8") from None


_READERS: Mapping[str, Callable[[_Parser], Bare]] = {
    **dict.fromkeys("-0123456789", _Parser.number),
    '"': _Parser.string,
    ":": _Parser.bytes,
    "?": _Parser.boolean,
    "@": _Parser.date,
    "%": _Parser.display,
}


def _parse(value: bytes | str, read: Callable[[_Parser], T]) -> T:
    if isinstance(value, bytes):
        try:
            value = value.decode("ascii")
        except UnicodeDecodeError:
            raise NotStructured("a byte outside ASCII (RFC 9651 §4.2)") from None
    parser = _Parser(value.strip(" "))
    result = read(parser)
    if parser.at != len(parser.text):
        raise parser.fail("something behind the end")
    return result


def parse_list(value: bytes | str) -> list[Member]:
    """The members of a List (RFC 9651 §4.2.1). Raises ``NotStructured``."""
    return _parse(value, _Parser.list)


def parse_dictionary(value: bytes | str) -> dict[str, Member]:
    """The members of a Dictionary (RFC 9651 §4.2.2). Raises ``NotStructured``."""
    return _parse(value, _Parser.dictionary)


def parse_item(value: bytes | str) -> Item:
    """The Item that the field is (RFC 9651 §4.2.3). Raises ``NotStructured``."""
    return _parse(value, _Parser.item)


def string(value: str) -> str:
    """``value`` as a String on the wire (RFC 9651 §4.1.6); what a String cannot hold becomes ``?``."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def token_or_string(value: str) -> str:
    """``value`` as a Token where it is one, else as a String."""
    return value if _TOKEN.fullmatch(value) else string(value)
