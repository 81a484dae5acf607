"""What the active releases answer: a path is looked up in dictionaries and found as a ready entry. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from blocks.edge.entry import PUSHED, Body, Entry, wire_of
from blocks.http.message import Headers, Pair, Request, Response, Section

from .manifest import File, Manifest, asked_path

FOREVER = 10 * 365 * 86400.0  # seconds: fresh until the release goes
Fields = Callable[[list[Pair]], list[Pair]]
_METHODS = frozenset(("GET", "HEAD"))
_PLAIN = ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"))


class Pushed(Entry):
    """An entry of a release. This edge is its origin: its Date is that of the answer (RFC 9110 §6.6.1), and it has no age."""

    __slots__ = ("_line", "_undated")

    def __init__(self, key: str, pairs: list[Pair], body: Body) -> None:
        self._undated = wire_of(pairs)
        self._line = b""
        super().__init__(key, 200, self._undated, body, born=0.0, lifetime=FOREVER, flags=PUSHED)

    def renew(self, now: float, date: bytes) -> None:
        """Answer at monotonic ``now`` with the field line ``date``."""
        self.born = now
        if date is not self._line:
            self._line = date
            self.wire = self._undated + date
            self.rendered, self.second = None, -1


class Mount(NamedTuple):
    """One active release, ready to answer."""

    manifest: Manifest
    hosts: frozenset[str]  # empty: all
    entries: dict[str, Pushed]
    broken: set[str]  # paths whose bytes were found damaged


def mount(manifest: Manifest, bodies: dict[str, Body], fields: Fields = list) -> Mount:
    """A release with the bodies of its objects by name; those that are missing are answered 503. ``fields`` has the last word on fields."""
    entries: dict[str, Pushed] = {}
    broken: set[str] = set()
    for file in manifest.files:
        body = bodies.get(file.object)
        if body is None:
            broken.add(file.path)
        else:
            entries[file.path] = entry_of(file, body, fields)
    return Mount(manifest, frozenset(host.lower() for host in manifest.hosts), entries, broken)


def entry_of(file: File, body: Body, fields: Fields = list) -> Pushed:
    """A file as an entry. Its key has the digest, so that nothing derived from it (a compressed twin) outlives a change of its bytes."""
    name = file.object
    pairs = [*file.pairs, (b"etag", b'"%b"' % name[:32].encode()), (b"repr-digest", file.digest.encode())]
    return Pushed(f"push:{name}:{file.path}", fields(pairs), body)


class Table:
    """The mounts of all sites, the most specific first: hosts before all hosts, longer prefixes before shorter ones."""

    __slots__ = ("_mounts",)

    def __init__(self, mounts: Iterable[Mount] = ()) -> None:
        self._mounts = sorted(mounts, key=lambda m: (not m.hosts, -len(m.manifest.prefix)))

    def __bool__(self) -> bool:
        return bool(self._mounts)

    def find(self, request: Request) -> Pushed | Response | None:
        """The answer to a request, or None where the origin is to be asked."""
        target = request.target
        raw = target if "?" not in target else target.partition("?")[0]
        for mounted in self._mounts:
            if not raw.startswith(mounted.manifest.prefix):
                continue
            if mounted.hosts and request.host.lower() not in mounted.hosts:
                continue
            return _answer(mounted, request, raw)
        return None


def _answer(mounted: Mount, request: Request, raw: str) -> Pushed | Response | None:
    path = asked_path(raw)
    entry = _entry(mounted, path) if path is not None else None
    if entry is not None:
        if request.method not in _METHODS:
            return Response(
                405, Headers.of(Section([*_PLAIN, (b"allow", b"GET, HEAD")])), b"This is a file: GET or HEAD.\n"
            )
        return entry
    if path is not None and (path in mounted.broken or path + "index.html" in mounted.broken):
        return (
            None
            if mounted.manifest.miss == "pull"
            else _refusal(503, b"A pushed file is damaged; push the release again.\n")
        )
    if mounted.manifest.miss == "pull":
        return None
    return _missing(mounted, request, raw, path)


def _entry(mounted: Mount, path: str) -> Pushed | None:
    return mounted.entries.get(path + "index.html" if path.endswith("/") else path)


def _missing(mounted: Mount, request: Request, raw: str, path: str | None) -> Pushed | Response:
    """Nothing at that path: the folder's own path, the application's page, the release's own 404, or ours."""
    manifest = mounted.manifest
    if path is not None and request.method in _METHODS:
        if not path.endswith("/") and path + "/index.html" in mounted.entries:
            place = raw + "/" + request.target[len(raw) :]
            return Response(301, Headers.of(Section([*_PLAIN, (b"location", place.encode("latin-1", "replace"))])))
        fallback = mounted.entries.get(manifest.fallback)
        if fallback is not None:
            return fallback
    page = mounted.entries.get(manifest.not_found)
    if page is None:
        return _refusal(404, b"Not found\n")
    body = page.body if isinstance(page.body, bytes) else page.body.stream()
    kept = [pair for pair in page.section.pairs if pair[0] not in (b"etag", b"cache-control", b"repr-digest", b"date")]
    return Response(404, Headers.of(Section([*kept, (b"cache-control", b"no-store")])), body)


def _refusal(status: int, text: bytes) -> Response:
    return Response(status, Headers.of(Section(list(_PLAIN))), text)
