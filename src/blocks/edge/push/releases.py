"""The releases of an edge: taken in pieces, verified, switched at once, served when the origin is gone.

Folder, shared by the workers of one edge (``store/FORMAT.md``): ``objects``, ``uploads``, ``releases/<site>/<release>.json``,
``sites/<site>.json``. Every change is a file renamed into place, so that a kill leaves the old state or the new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, TypeVar

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import BlocksError, ConfigError
from blocks.core.logging import events
from blocks.core.quantities import size as size_of
from blocks.edge.dates import format_date
from blocks.edge.entry import Body, Entry, wire_of
from blocks.edge.store.disk.files import Files
from blocks.edge.store.disk.record import Damaged
from blocks.edge.transform.compression import Compression
from blocks.http.message import Request, Response

from . import manifest as manifests
from . import site as sites
from .manifest import Manifest, check_name
from .objects import Objects, Refused
from .site import Conflict, Site
from .table import Mount, Pushed, Table, mount
from .twins import Twins

INLINE = 256 * 1024  # bytes; smaller files are served from memory while the budget lasts
KEEP = 5  # releases of a site that gc leaves besides the active one and the one before (Kamal and Capistrano keep 5)
STALE_UPLOAD = 86400.0  # seconds after which gc drops what did not become complete (tus servers: a day)
DRAFTS = 4  # manifests on their way at a time; who loses his begins again
MAX_RELEASES = 1000  # of a site

T = TypeVar("T")


class NoRoom(BlocksError):
    """A release does not fit; the message gives the numbers."""


class Unknown(BlocksError):
    """There is no such release, site or object."""


class Releases:
    """Pushed releases in a folder, at most ``capacity`` bytes. ``find`` is what the edge asks; the rest is the push API.

    ``memory`` bounds the bytes of small files that are held ready. With ``compression`` they are coded for clients that take it.
    ``active`` says whether anything is served at all. ``switched`` is called with the site's name after a change.
    """

    name = "releases"

    def __init__(
        self, path: str | os.PathLike[str], capacity: float | str = "10GiB", *, memory: float | str = "64MiB",
        compression: Compression | None = None, clock: Clock = SYSTEM, files: Files | None = None,
    ) -> None:  # fmt: skip
        self.path = os.fspath(path)
        self.capacity = size_of(capacity)
        self.memory = size_of(memory)
        self.switched: Callable[[str], None] = lambda site: None
        self.files = files or Files()
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "edge-push")
        self._readers = ThreadPoolExecutor(4, "edge-push-read")
        self.objects = Objects(self.path, self.files, self._readers)
        self._mounts: dict[str, tuple[str, Mount]] = {}  # site → (release, what answers)
        self._ready: dict[tuple[str, str], Mount | None] = {}  # prepared, not committed
        self._table = Table()
        self._twins = Twins(compression, self._readers) if compression is not None else None
        self.active = False
        self._second, self._date = -1, b""
        self._drafts: dict[str, bytearray] = {}  # manifests on their way
        self._wanted: dict[str, int] = {}  # objects of staged releases and their sizes

    # -- the edge's side

    def find(self, request: Request, key: str = "") -> Entry | Response | None:
        """What a pushed release answers; None where the origin is to be asked. Below 2 µs, and nothing when nothing is pushed."""
        if not self.active:
            return None
        found = self._table.find(request)
        if isinstance(found, Pushed):
            if self._twins is not None:
                found = self._twins.choose(request, found)
            wall = self._clock.wall()
            if int(wall) != self._second:
                self._second = int(wall)
                self._date = wire_of([(b"date", format_date(wall))])
            found.renew(self._clock.monotonic(), self._date)
        return found

    async def __aenter__(self) -> Releases:
        await self._run(self._start)
        self._show()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._run(self.objects.close)
        self._thread.shutdown()
        self._readers.shutdown()

    def _start(self) -> None:
        self.objects.start()
        for folder in ("releases", "sites"):
            self.files.folder(os.path.join(self.path, folder))
        for name in os.listdir(os.path.join(self.path, "releases")):
            for staged in self._names(name):
                found = self._manifest(name, staged)
                if found is not None:
                    self._wanted.update(found.objects)
        for file in os.listdir(os.path.join(self.path, "sites")):
            if file.endswith(".json"):
                self._mount_active(self._site(file.removesuffix(".json")))

    def _mount_active(self, site: Site) -> None:
        manifest = self._manifest(site.name, site.active) if site.active else None
        if manifest is None:
            self._mounts.pop(site.name, None)
        else:
            self._mounts[site.name] = (site.active, self._load(manifest))

    def _show(self) -> None:
        self._table = Table(mounted for _, mounted in self._mounts.values())
        self.active = bool(self._mounts)
        if self._twins is not None:
            self._twins.keep({entry.key for _, mounted in self._mounts.values() for entry in mounted.entries.values()})

    # -- staging

    async def stage(self, data: bytes) -> dict[str, Any]:
        """Take a manifest; says which objects are missing and where each goes on. The same one may come again.

        Raises ``ConfigError`` (malformed), ``Conflict`` (another release of that name), ``NoRoom``.
        """
        return await self._run(self._stage, data)

    def _stage(self, data: bytes) -> dict[str, Any]:
        manifest = manifests.decode(data)
        place = self._release_path(manifest.site, manifest.release)
        known = self.files.load(place)
        canonical = manifests.encode(manifest)
        if known is not None and known != canonical:
            raise Conflict(
                f"there is another release {manifest.release} of site {manifest.site}; a release never changes: use a new name"
            )
        missing = {name: size for name, size in manifest.objects.items() if not self.objects.has(name, size)}
        if known is None:
            self._check_room(manifest)
            self.files.folder(os.path.dirname(place))
            self.files.replace(place, canonical, durable=True)
        self._wanted.update(manifest.objects)
        offsets = {name: self.objects.received(name) for name in missing}
        for name, size in missing.items():
            if offsets[name] >= size:  # all of it came before a kill (or it is empty): only the check is missing
                try:
                    self.objects.take(name, size, size, b"")
                except Refused:
                    offsets[name] = 0
        return {
            "site": manifest.site,
            "release": manifest.release,
            "missing": {name: offset for name, offset in offsets.items() if not self.objects.has(name, missing[name])},
        }

    def _check_room(self, manifest: Manifest) -> None:
        """What every staged release needs must fit, whether it has come already or not."""
        if len(self._names(manifest.site)) >= MAX_RELEASES:
            raise NoRoom(f"site {manifest.site} has {MAX_RELEASES} releases already; run gc first")
        known = sum(self._wanted.values())
        more = sum(size for name, size in manifest.objects.items() if name not in self._wanted)
        if known + more > self.capacity:
            raise NoRoom(
                f"{more} bytes more than the {known} of the releases that are there do not fit {self.capacity}; "
                "run gc, or give the edge a larger --push-size"
            )

    async def stage_piece(self, name: str, size: int, offset: int, data: bytes) -> dict[str, Any]:
        """Take a manifest (``name`` is its SHA-256 in hex) in pieces; with the last one ``stage``. ``Refused`` says where to go on."""
        if not 0 < size <= manifests.MAX_MANIFEST or offset + len(data) > size:
            raise ConfigError(f"a manifest has 1 to {manifests.MAX_MANIFEST} bytes, and no piece goes beyond its size")
        draft = self._drafts.setdefault(name, bytearray())
        while len(self._drafts) > DRAFTS:
            self._drafts.pop(next(each for each in self._drafts if each != name))
        if offset > len(draft):
            raise Refused(f"bytes {len(draft)} to {offset} are missing", len(draft))
        draft[offset : offset + len(data)] = data
        if len(draft) < size:
            return {"received": len(draft), "complete": False}
        whole = bytes(self._drafts.pop(name))
        if await self._run(_sha256, whole) != name:
            raise Refused("the bytes do not match their digest; send them again", 0)
        return await self.stage(whole)

    async def take(self, name: str, offset: int, data: bytes) -> dict[str, Any]:
        """Add a piece of an object that a staged release needs. Raises ``Unknown``, ``Refused`` with where to go on."""
        size = self._wanted.get(name)
        if size is None:
            raise Unknown(f"no staged release needs the object {name[:80]}")
        complete = await self._run(self.objects.take, name, size, offset, data)
        return {"object": name, "received": size if complete else offset + len(data), "complete": complete}

    # -- switching

    async def prepare(self, site: str, release: str, transaction: str) -> dict[str, Any]:
        """Load a complete release and reserve the site for ``transaction``. Raises ``Unknown``, ``Conflict``, ``Refused``."""
        self._check_transaction(transaction)
        mounted = await self._run(self._prepare, site, release, transaction)
        self._ready[site, transaction] = mounted
        return {"site": site, "release": release, "transaction": transaction}

    def _prepare(self, name: str, release: str, transaction: str) -> Mount | None:
        mounted = None
        if release:
            manifest = self._manifest(name, release)
            if manifest is None:
                raise Unknown(f"there is no release {release} of site {name} here; push it first")
            missing = sum(not self.objects.has(o, size) for o, size in manifest.objects.items())
            if missing:
                raise Conflict(f"release {release} is not complete: {missing} objects are missing; push it again")
            mounted = self._load(manifest)
            if mounted.broken:
                raise Conflict(f"release {release} has damaged files ({min(mounted.broken)}); push it again")
        with self._changing(name) as site:
            site.prepare(transaction, release, self._clock.wall())
        return mounted

    async def commit(self, site: str, transaction: str) -> dict[str, Any]:
        """Switch to what was prepared, durably. Raises ``Conflict`` when it was not, or too long ago."""
        active, mounted = await self._run(self._commit, site, transaction)
        self._switch(site, active, self._ready.pop((site, transaction), mounted))
        return {"site": site, "active": active}

    def _commit(self, name: str, transaction: str) -> tuple[str, Mount | None]:
        with self._changing(name) as site:
            active = site.commit(transaction, self._clock.wall())
        if (name, transaction) in self._ready or not active:
            return active, None
        manifest = self._manifest(name, active)  # prepared before a restart
        return active, self._load(manifest) if manifest else None

    async def revert(self, site: str, transaction: str) -> dict[str, Any]:
        """Undo what ``transaction`` did or let its reservation go; done again, it does nothing."""
        self._ready.pop((site, transaction), None)
        active, mounted = await self._run(self._revert, site, transaction)
        if self._mounts.get(site, ("",))[0] != active:
            self._switch(site, active, mounted)
        return {"site": site, "active": active}

    def _revert(self, name: str, transaction: str) -> tuple[str, Mount | None]:
        with self._changing(name) as site:
            active = site.revert(transaction, self._clock.wall())
        manifest = self._manifest(name, active) if active else None
        return active, self._load(manifest) if manifest else None

    def _switch(self, site: str, active: str, mounted: Mount | None) -> None:
        if mounted is None:
            self._mounts.pop(site, None)
        else:
            self._mounts[site] = (active, mounted)
        self._show()  # one assignment: a request sees the old table or the new one
        self.switched(site)
        events().info("edge-release", site=site, active=active)

    # -- looking and cleaning

    async def status(self) -> dict[str, Any]:
        """Every site with its releases, what is active, what was before, and what is not complete."""
        return await self._run(self._status)

    def _status(self) -> dict[str, Any]:
        listing: dict[str, Any] = {}
        for name in sorted(os.listdir(os.path.join(self.path, "releases"))):
            site = self._site(name)
            rows = [row for release in self._names(name) if (row := self._row(name, release)) is not None]
            listing[name] = {
                "active": site.active,
                "previous": site.previous,
                "serving": self._mounts.get(name, ("",))[0],
                "releases": sorted(rows, key=_pushed_at),
                "history": [{"release": a.release, "before": a.before, "at": a.at} for a in site.history],
            }
        return {"sites": listing, "bytes": sum(self._sizes().values()), "capacity": self.capacity}

    def _row(self, site: str, release: str) -> dict[str, Any] | None:
        manifest = self._manifest(site, release)
        if manifest is None:
            return None
        missing = sum(not self.objects.has(name, size) for name, size in manifest.objects.items())
        pushed = os.stat(self._release_path(site, release)).st_mtime
        return {
            "release": release,
            "files": len(manifest.files),
            "bytes": manifest.size,
            "missing": missing,
            "pushed": pushed,
        }

    async def gc(self, keep: int = KEEP) -> dict[str, Any]:
        """Drop releases but the newest ``keep``, the active and the previous one of each site, then what nothing needs any more."""
        return await self._run(self._gc, keep)

    def _gc(self, keep: int) -> dict[str, Any]:
        dropped: list[str] = []
        needed: dict[str, int] = {}
        for name in os.listdir(os.path.join(self.path, "releases")):
            site = self._site(name)
            stays = {site.active, site.previous, site.prepared.release if site.prepared else ""}
            by_age = sorted(self._names(name), key=lambda release: -os.stat(self._release_path(name, release)).st_mtime)
            for number, release in enumerate(by_age):
                if number >= keep and release not in stays:
                    self.files.remove(self._release_path(name, release))
                    dropped.append(f"{name}/{release}")
                elif (manifest := self._manifest(name, release)) is not None:
                    needed.update(manifest.objects)
        freed = sum(self.objects.remove(name) for name in self.objects.names() if name not in needed)
        for path, touched, size in self.objects.uploads():
            if os.path.basename(path).partition(".")[0] not in needed or touched < time.time() - STALE_UPLOAD:
                self.files.remove(path)
                freed += size
        freed += self.objects.tidy()
        self._wanted = needed
        return {"dropped": sorted(dropped), "freed": freed}

    # -- inside

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _load(self, manifest: Manifest) -> Mount:
        """Bodies for a release: small files in memory while the budget lasts, the others as files that are read when asked for."""
        budget = self.memory - sum(
            _held(mounted) for site, (_, mounted) in self._mounts.items() if site != manifest.site
        )
        bodies: dict[str, Body] = {}
        for name, size in manifest.objects.items():
            try:
                if size <= INLINE and size <= budget:
                    bodies[name] = self.objects.read(name)
                    budget -= size
                elif self.objects.has(name, size):
                    bodies[name] = self.objects.content(name, size, self._damaged(manifest, name))
            except (OSError, Damaged):
                self.objects.set_aside(name)
        return mount(manifest, bodies, self._twins.fields if self._twins is not None else list)

    def _damaged(self, manifest: Manifest, name: str) -> Callable[[], None]:
        """What to do when bytes are found damaged while they are served: never again, and let the next push bring them anew."""

        def act() -> None:
            for _, mounted in self._mounts.values():
                for file in mounted.manifest.files:
                    if file.object == name and mounted.entries.pop(file.path, None) is not None:
                        mounted.broken.add(file.path)
            events().error("edge-damaged", site=manifest.site, release=manifest.release, object=name)
            self._thread.submit(self.objects.set_aside, name)

        return act

    @contextmanager
    def _changing(self, name: str) -> Iterator[Site]:
        """The site's state, read under a lock that other workers honour, and written back if the block ends well."""
        lock = os.open(os.path.join(self.path, "sites", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            site = self._site(name)
            before = sites.encode(site)
            yield site
            after = sites.encode(site)
            if after != before:
                self.files.replace(self._site_path(name), after, durable=True)
        finally:
            os.close(lock)

    def _site(self, name: str) -> Site:
        check_name("site", name)
        data = self.files.load(self._site_path(name))
        return sites.decode(data) if data is not None else Site(name)

    def _manifest(self, site: str, release: str) -> Manifest | None:
        data = self.files.load(self._release_path(site, release))
        if data is None:
            return None
        try:
            return manifests.decode(data)
        except ConfigError:
            return None

    def _names(self, site: str) -> list[str]:
        try:
            files = os.listdir(os.path.join(self.path, "releases", site))
        except FileNotFoundError:
            return []
        return [file.removesuffix(".json") for file in files if file.endswith(".json")]

    def _sizes(self) -> dict[str, int]:
        """Bytes by object, of what is complete."""
        return {name: os.stat(self.objects.place(name)).st_size for name in self.objects.names()}

    def _release_path(self, site: str, release: str) -> str:
        check_name("site", site)
        check_name("release", release)
        return os.path.join(self.path, "releases", site, release + ".json")

    def _site_path(self, name: str) -> str:
        return os.path.join(self.path, "sites", name + ".json")

    def _check_transaction(self, transaction: str) -> None:
        check_name("transaction", transaction)


def _sha256(data: bytes) -> str:
    return sha256(data).hexdigest()


def _pushed_at(row: dict[str, Any]) -> float:
    return float(row["pushed"])


def _held(mounted: Mount) -> int:
    return sum(len(entry.body) for entry in mounted.entries.values() if isinstance(entry.body, bytes))
