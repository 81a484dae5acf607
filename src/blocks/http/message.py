"""A request and a response are plain values: they own their parts and do no I/O.

Field names are lower-case ``bytes`` inside (as ASGI, HTTP/2 and Envoy have them); fields keep their order and their repeats.
What connections have between themselves (Connection, Transfer-Encoding, Keep-Alive …: RFC 9110 §7.6.1) never gets here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, overload

from .body import Body, Stream

Pair = tuple[bytes, bytes]
FieldsLike = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

_BAD_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_names: dict[str, bytes] = {}
_wire_names: dict[bytes, bytes] = {}
_MEMO_LIMIT = 4096  # distinct names kept; a peer that invents names cannot grow the memos beyond it


def field_name(name: str | bytes) -> bytes:
    """The name as it is kept: lower-case bytes. Raises ``ValueError`` if it is no token (RFC 9110 §5.1)."""
    if isinstance(name, bytes):
        known = name.lower()
    else:
        found = _names.get(name)
        if found is not None:
            return found
        known = name.lower().encode("latin-1", "strict")
    if not known or _BAD_NAME.search(known):
        raise ValueError(f"{name!r} is not a field name (RFC 9110 §5.1)")
    if isinstance(name, str) and len(_names) < _MEMO_LIMIT:
        _names[name] = known
    return known


def field_value(value: str | bytes) -> bytes:
    """The value as it is kept. Raises ``ValueError`` for CR, LF, NUL and other controls (RFC 9110 §5.5): no response splitting."""
    raw = value.strip(" \t").encode("latin-1", "strict") if isinstance(value, str) else value.strip(b" \t")
    if _BAD_VALUE.search(raw):
        raise ValueError(f"{value!r} holds a control character and cannot be a field value (RFC 9110 §5.5)")
    return raw


def wire_name(name: bytes) -> bytes:
    """``content-type`` as it goes on an HTTP/1 wire: ``Content-Type: `` (Go's canonical form; names are case-insensitive)."""
    found = _wire_names.get(name)
    if found is None:
        found = b"-".join([word.capitalize() for word in name.split(b"-")]) + b": "
        if len(_wire_names) < _MEMO_LIMIT:
            _wire_names[name] = found
    return found


class Section:
    """A header section that never changes, so that what was computed from it once can be kept with it.

    ``pairs`` are (lower-case name, value). ``derived`` belongs to whoever computes something from the section alone, keyed by
    itself; a section read from a connection lives with that connection, so facts of the connection may go in too.
    """

    __slots__ = ("_dated", "_index", "_wire", "derived", "pairs", "sent")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.derived: dict[object, Any] = {}
        self._index: dict[bytes, list[bytes]] | None = None
        self._wire: bytes | None = None
        self._dated: bool | None = None
        self.sent: tuple[tuple[int, int, bool, int], bytes] | None = (
            None  # the last head made of it, and what that depended on
        )

    @property
    def index(self) -> dict[bytes, list[bytes]]:
        """Values by name."""
        index = self._index
        if index is None:
            index = self._index = {}
            for name, value in self.pairs:
                if name in index:
                    index[name].append(value)
                else:
                    index[name] = [value]
        return index

    @property
    def has_date(self) -> bool:
        """Whether Date is among them."""
        dated = self._dated
        if dated is None:
            dated = self._dated = self.has(b"date")
        return dated

    def has(self, name: bytes) -> bool:
        """Whether a lower-case name is among them, without building the index."""
        if self._index is not None:
            return name in self._index
        for pair in self.pairs:  # noqa: SIM110  # any() over a generator costs three times as much
            if pair[0] == name:
                return True
        return False

    @property
    def wire(self) -> bytes:
        """The field lines as HTTP/1 sends them, each ended by CRLF, without Content-Length: the writer states the framing."""
        wire = self._wire
        if wire is None:
            known = _wire_names
            try:
                lines = [known[name] + value for name, value in self.pairs if name != b"content-length"]
            except KeyError:
                lines = [wire_name(name) + value for name, value in self.pairs if name != b"content-length"]
            lines.append(b"")
            wire = self._wire = b"\r\n".join(lines)
        return wire


class Headers:
    """The fields of a message: ordered, repeatable, case-insensitive.

    ``headers["accept"]`` is the combined value (repeats joined by ", ", RFC 9110 §5.2); ``get_all`` gives the lines apart, which
    Set-Cookie needs. Setting validates: a CR or LF raises ``ValueError``. Text is latin-1, as HTTP/1 has it.
    """

    __slots__ = ("section",)

    def __init__(self, fields: FieldsLike | None = None) -> None:
        if not fields:
            self.section = Section([])
            return
        items = fields.items() if isinstance(fields, Mapping) else fields
        self.section = Section([(field_name(name), field_value(value)) for name, value in items])

    @classmethod
    def of(cls, section: Section) -> Headers:
        """Headers over a section that was checked already; the section itself is never changed."""
        headers = cls.__new__(cls)
        headers.section = section
        return headers

    @property
    def raw(self) -> list[Pair]:
        """(lower-case name, value) in order. Not to be changed in place."""
        return self.section.pairs

    def find(self, name: bytes) -> bytes | None:
        """The combined value of a lower-case name, as bytes, or None: the data path's ``get``."""
        values = self.section.index.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else b", ".join(values)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The combined value, or ``default``."""
        value = self.find(field_name(name))
        return default if value is None else value.decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """Every line of that name, in order."""
        return [value.decode("latin-1") for value in self.section.index.get(field_name(name), ())]

    def items(self) -> list[tuple[str, str]]:
        """All fields as text, in order, repeats and all."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.section.pairs]

    def __getitem__(self, name: str) -> str:
        value = self.find(field_name(name))
        if value is None:
            raise KeyError(name)
        return value.decode("latin-1")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | bytes) and field_name(name) in self.section.index

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.section.index)

    def __len__(self) -> int:
        return len(self.section.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.section.pairs == other.section.pairs

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"

    def __setitem__(self, name: str, value: str | bytes) -> None:
        key, content = field_name(name), field_value(value)
        pairs: list[Pair] = []
        placed = False
        for pair in self.section.pairs:
            if pair[0] != key:
                pairs.append(pair)
            elif not placed:
                pairs.append((key, content))
                placed = True
        if not placed:
            pairs.append((key, content))
        self.section = Section(pairs)

    def add(self, name: str, value: str | bytes) -> None:
        """One more line of that name, after the others."""
        self.section = Section([*self.section.pairs, (field_name(name), field_value(value))])

    def setdefault(self, name: str, value: str) -> str:
        """The value that is there, else ``value``, which is then set."""
        found = self.get(name)
        if found is None:
            self[name] = value
            return value
        return found

    def remove(self, name: str) -> None:
        """Take out every line of that name; nothing happens when there is none."""
        key = field_name(name)
        if key in self.section.index:
            self.section = Section([pair for pair in self.section.pairs if pair[0] != key])

    __delitem__ = remove

    def replace(self, drop: Iterable[bytes], add: Iterable[Pair]) -> None:
        """Drop the lower-case names in ``drop`` and append ``add``, unchecked, in one go: for filters on the data path."""
        out = frozenset(drop)
        pairs = [pair for pair in self.section.pairs if pair[0] not in out]
        pairs.extend(add)
        self.section = Section(pairs)

    def copy(self) -> Headers:
        """Headers that can be changed without changing these."""
        return Headers.of(self.section)


class Peer:
    """Both ends of the connection that a request came on; one for each connection.

    ``client`` and ``server`` are (host, port), or (path, 0) for a Unix socket; ``scheme`` is http or https; ``tls`` holds
    what the handshake gave (``ssl.SSLObject``) or None; ``certificate`` the client's certificate as ``getpeercert()`` has it.
    """

    __slots__ = ("certificate", "client", "scheme", "server", "tls")

    def __init__(
        self,
        client: tuple[str, int] = ("", 0),
        server: tuple[str, int] = ("", 0),
        scheme: str = "http",
        tls: Any = None,
        certificate: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.server = server
        self.scheme = scheme
        self.tls = tls
        self.certificate = certificate


NOBODY = Peer()


class Request:
    """A request as a handler gets it.

    ``target`` is in origin-form (``/path?query``, undecoded) or ``*``; Host carries the authority. ``version`` is 10 or 11.
    ``deadline`` is on the loop's clock (``math.inf``: none). ``upgrade`` is the protocol asked for (``websocket``) or "".
    ``expects`` is True while the client waits for 100 Continue; reading the body tells it to go on. ``inform`` takes an
    interim response (103, RFC 8297) to the client, or is None when it cannot. ``state`` is for filters to leave notes in.
    """

    __slots__ = (
        "_state",
        "body",
        "deadline",
        "expects",
        "headers",
        "inform",
        "method",
        "peer",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Headers | FieldsLike | None = None,
        body: Body = b"",
        *,
        peer: Peer = NOBODY,
        version: int = 11,
        upgrade: str = "",
        expects: bool = False,
        deadline: float = inf,
        inform: Callable[[Response], None] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers if type(headers) is Headers else Headers(headers)  # type: ignore[arg-type]  # Headers was just excluded
        self.body = body
        self.peer = peer
        self.version = version
        self.upgrade = upgrade
        self.expects = expects
        self.deadline = deadline
        self.inform = inform
        self._state: dict[Any, Any] | None = None

    @property
    def state(self) -> dict[Any, Any]:
        """Notes that filters leave for each other, made on first use."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def path(self) -> str:
        """The target up to the "?", percent-encoding kept."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the "?", undecoded; empty when there is none."""
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        """The authority asked for, as Host gave it; empty if an HTTP/1.0 client sent none."""
        value = self.headers.find(b"host")
        return "" if value is None else value.decode("latin-1")

    @property
    def scheme(self) -> str:
        """http or https, of the connection."""
        return self.peer.scheme

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body; may be called again. Raises ``TooLarge`` (413) beyond ``limit`` bytes."""
        if isinstance(self.body, Stream):
            self.body = await self.body.read(limit)
        return self.body

    def copy(self) -> Request:
        """A request that can be changed and sent again; the body is shared, so it should be bytes."""
        twin = Request(
            self.method, self.target, Headers.of(self.headers.section), self.body, peer=self.peer, version=self.version,
            upgrade=self.upgrade, expects=self.expects, deadline=self.deadline, inform=self.inform,
        )  # fmt: skip
        twin._state = self._state
        return twin

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


class Response:
    """A response as a handler gives it.

    ``body`` is bytes when it is whole, a ``Stream`` when it is still coming, a ``Tunnel`` after 101. The server states the framing
    itself; a Content-Length among the headers counts only where there is no body to measure (HEAD, 304).
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: Headers | FieldsLike | None = None, body: Any = b"") -> None:
        self.status = status
        self.headers = headers if type(headers) is Headers else Headers(headers)  # type: ignore[arg-type]  # Headers was just excluded
        self.body: Any = body

    @classmethod
    def text(cls, text: str, status: int = 200, headers: FieldsLike | None = None) -> Response:
        """A ``text/plain; charset=utf-8`` response."""
        response = cls(status, headers, text.encode())
        response.headers.setdefault("content-type", "text/plain; charset=utf-8")
        return response

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: FieldsLike | None = None) -> Response:
        """An ``application/json`` response of anything that msgspec encodes."""
        import msgspec  # 20 ms that a proxy never pays

        response = cls(status, headers, msgspec.json.encode(value))
        response.headers.setdefault("content-type", "application/json")
        return response

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body; may be called again. Raises ``TooLarge`` beyond ``limit`` bytes."""
        if isinstance(self.body, Stream):
            self.body = await self.body.read(limit)
        return self.body  # type: ignore[no-any-return]  # bytes by now

    def discard(self) -> None:
        """Give the body up unread, so that what it comes from can be released. Needed for a response that is not passed on."""
        cancel = getattr(self.body, "cancel", None)
        if cancel is not None:
            cancel()

    def __repr__(self) -> str:
        return f"<Response {self.status}>"
