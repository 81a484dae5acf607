"""Who the client is, told upstream and believed only from those who are trusted (X-Forwarded-*, Forwarded: RFC 7239, Via: RFC 9110 §7.6.3).

What an untrusted peer says about itself is dropped and replaced by what the connection shows. A trusted peer's chain is continued, and
read from its end: the client is the last address that no trusted proxy has. Of the two families only ``believe`` is read, as a
proxy that sets the one commonly passes a forged other through.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable
from functools import lru_cache
from typing import Any, Literal

from blocks.core.errors import ConfigError

from ..handler import Handler
from ..message import Pair, Peer, Request, Response, Section
from .addresses import Networks, address_of, element, node_of, quoted_node
from .appended import Appended, lines_of
from .told import Told, told_by_forwarded, told_by_x

Family = Literal["x-forwarded", "forwarded"]

_X = b"x-forwarded-"
# Said by clients about themselves, in the names that applications commonly believe.
_CLAIMS = frozenset(
    [b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"x-cluster-client-ip", b"x-original-forwarded-for"]
)
_ONCE: tuple[Any, ...] = (None, 0)
_NOTHING = Told([], [], "", "", "", b"")
_MEMO = 4096  # names, and hosts with clients, that are remembered
_HOPS = 32  # addresses of a chain that are read; longer ones are an attack or a loop


class Forwarded:
    """A filter that states the client's address, scheme, host and port to those behind, and leaves them in ``request.state``.

    ``trusted`` are networks or addresses of the proxies before this one (``"10.0.0.0/8"``), or ``loopback``, ``private``, ``unix``;
    nobody by default. ``believe`` is the family that they set. ``emit`` are the families to send on (both). ``via`` is this
    proxy's pseudonym, None for no Via. ``by`` is the ``by=`` of Forwarded (RFC 7239 §5.1), None to leave it out.

    ``request.state["client"]`` is the client's address as text ("" on a Unix socket), ``request.state["scheme"]`` what it used.
    """

    direct = True
    name = "forwarded"

    def __init__(
        self,
        trusted: Iterable[str] = (),
        *,
        believe: Family = "x-forwarded",
        emit: Collection[Family] = ("x-forwarded", "forwarded"),
        via: str | None = "blocks",
        by: str | None = None,
    ) -> None:
        for family in (believe, *emit):
            if family not in ("x-forwarded", "forwarded"):
                raise ConfigError(f"{family!r} is no family of fields; it is x-forwarded or forwarded")
        if via is not None and (
            not via.isascii() or not via.replace("-", "").replace(".", "").replace("_", "").isalnum()
        ):
            raise ConfigError(f"{via!r} cannot stand in Via: letters, digits, dot, dash and underscore only")
        self._networks = Networks(trusted)
        self._believe = believe
        self._emit = frozenset(emit)
        self._via = via.encode("ascii") if via is not None else None
        self._by = quoted_node(by) if by is not None else None
        self._known: dict[tuple[object, ...], tuple[tuple[Pair, ...], bytes]] = {}

    def __call__(self, request: Request, next: Handler) -> Coroutine[Any, Any, Response]:
        """Continue with the fields replaced; a header block that repeats on a connection is worked out once.

        One that comes for the first time may not come again: nothing is kept of it but that it came.
        """
        section, peer = request.headers.section, request.peer
        known = section.derived.get(self)
        if known is None:
            section.derived[self] = _ONCE
            known = (peer, request.version, *self._work_out(section, peer, request.version))
        elif known[0] is not peer or known[1] != request.version:
            sent, client, scheme = self._work_out(section, peer, request.version)
            sent = (
                Section(sent.pairs) if type(sent) is Appended else sent
            )  # the section must not be kept by what is kept with it
            known = section.derived[self] = (peer, request.version, sent, client, scheme)
        request.headers.section = known[2]
        state = request.state
        state["client"] = known[3]
        state["scheme"] = known[4]
        return next(request)

    def _work_out(self, section: Section, peer: Peer, version: int) -> tuple[Section, str, str]:
        """(section to send on, client's address, client's scheme)."""
        trusted = self._networks.trusts(peer.client[0])
        if not trusted and _silent(section.pairs):
            fields, lines = self._first_hop(_host(section), peer, version)
            return Appended(section, fields, lines), address_of(peer.client[0]) or "", peer.scheme
        told = _NOTHING
        if trusted:
            told = told_by_x(section) if self._believe == "x-forwarded" else told_by_forwarded(section)
        scheme = told.scheme or peer.scheme
        pairs = [pair for pair in section.pairs if not _claim(pair[0])]
        pairs.extend(self._fields(told, _host(section), peer, scheme))
        if self._via is not None:
            pairs = self._with_via(pairs, version)
        return Section(pairs), client_of(told.chain, peer, self._networks), scheme

    def _first_hop(self, host: bytes, peer: Peer, version: int) -> tuple[tuple[Pair, ...], bytes]:
        """The fields of a request that says nothing of proxies, and their lines. They are few, and each is asked for again and again."""
        key = (host, peer.client[0], peer.server[1], peer.scheme, version)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MEMO:
                self._known.clear()
            fields = self._fields(_NOTHING, host, peer, peer.scheme)
            if self._via is not None:
                fields = self._with_via(fields, version)
            known = self._known[key] = (tuple(fields), lines_of(fields))
        return known

    def _fields(self, told: Told, host: bytes, peer: Peer, scheme: str) -> list[Pair]:
        """What is said of the client in the families asked for."""
        fields: list[Pair] = []
        if "x-forwarded" in self._emit:
            fields.extend(_x_fields(told, host, peer, scheme))
        if "forwarded" in self._emit:
            fields.append((b"forwarded", b", ".join([*told.elements, self._element(host, peer)])))
        return fields

    def _element(self, host: bytes, peer: Peer) -> bytes:
        """This hop in Forwarded (RFC 7239 §4)."""
        by = [f"by={self._by}"] if self._by is not None else []
        return element(node_of(peer), host.decode("latin-1"), peer.scheme, *by)

    def _with_via(self, pairs: list[Pair], version: int) -> list[Pair]:
        assert self._via is not None
        mine = (b"1.0 " if version == 10 else b"1.1 ") + self._via
        before = [value for name, value in pairs if name == b"via"]
        rest = [pair for pair in pairs if pair[0] != b"via"] if before else pairs
        rest.append((b"via", b", ".join([*before, mine])))
        return rest


def client_of(chain: list[str], peer: Peer, trusted: Networks) -> str:
    """The last address of the chain that is not a trusted proxy's; an entry that is no address ends what can be believed."""
    client = address_of(peer.client[0]) or ""
    for entry in reversed(chain[-_HOPS:]):
        address = address_of(entry)
        if address is None:
            break
        client = address
        if not trusted.trusts(address):
            break
    return client


@lru_cache(maxsize=4096)
def _claim(name: bytes) -> bool:
    """Whether a field speaks about the client; with "_" for "-" too, as CGI and WSGI servers take them for the same."""
    if b"_" in name:
        name = name.replace(b"_", b"-")
    return name.startswith(_X) or name in _CLAIMS


_plain: set[bytes] = set()  # names that were found to be neither claims nor Via


def _silent(pairs: list[Pair]) -> bool:
    """Whether no field speaks about clients or proxies."""
    names = [pair[0] for pair in pairs]
    if _plain.issuperset(names):
        return True
    for name in names:
        if name == b"via" or _claim(name):
            return False
        if len(_plain) < _MEMO:
            _plain.add(name)
    return True


def _host(section: Section) -> bytes:
    for name, value in section.pairs:
        if name == b"host":
            return value
    return b""


def _x_fields(told: Told, host: bytes, peer: Peer, scheme: str) -> list[Pair]:
    """X-Forwarded-For with this hop behind; the others as the outermost proxy had them, else as this connection has them."""
    fields = [
        (b"x-forwarded-for", ", ".join([*told.chain, node_of(peer)]).encode("latin-1")),
        (b"x-forwarded-proto", scheme.encode("ascii")),
    ]
    outermost = told.host.encode("latin-1") if told.host else host
    if outermost:
        fields.append((b"x-forwarded-host", outermost))
    port = told.port or str(peer.server[1] or (443 if scheme == "https" else 80))
    fields.append((b"x-forwarded-port", port.encode("ascii")))
    if told.prefix:
        fields.append((b"x-forwarded-prefix", told.prefix))
    return fields
