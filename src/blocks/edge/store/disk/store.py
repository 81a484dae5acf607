"""The second tier on disk: a ``Store`` whose every system call that may wait is made by a thread."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgpack

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.quantities import size as size_of
from blocks.edge.entry import Entry
from blocks.edge.store import Purge

from . import record
from .bans import Bans, Scopes
from .blob import BlobContent, Blobs
from .files import Files
from .fill import Fill
from .folder import Folder, claim
from .journal import Journal
from .log import Log
from .recovery import drop_strays, recover
from .writing import Operation, Writing

INLINE = 1024 * 1024  # bytes; larger bodies become blobs. The edge hands larger ones over as fills anyway
PROMPT = (
    256 * 1024
)  # bytes of a record that the loop itself copies out of the page cache; larger ones are a thread's work
PENDING = 32 * 1024 * 1024  # bytes that may wait to be written; beyond it entries are dropped, not delayed
MIN_SIZE = 4 * 1024 * 1024
READERS = 4  # threads that read: nginx's thread_pool default is 32, but here only what the page cache lacks gets there


class _Saved(NamedTuple):
    """An entry that waits to be written, or (None) a deletion that does."""

    entry: Entry | None
    size: int


class DiskStore:
    """Responses in a folder: at most ``size`` bytes, warm again after a restart or a kill, never serving what is damaged.

    ``path`` is a folder of its own, for ``shards`` processes at most, each with a share of it that holds ``size`` (``ConfigError`` for
    one process more). ``clock`` is the edge's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: float | str = "4GiB",
        *,
        shards: int = 1,
        clock: Clock = SYSTEM,
        files: Files | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.size = size_of(size)
        if self.size < MIN_SIZE:
            raise ConfigError(f"a disk store of {size} is too small; give it {MIN_SIZE // 1048576}MiB or more")
        self.max_object = self.size // 4
        self._shards = shards
        self.files = files or Files()
        self.bans = Bans()
        self.readers = ThreadPoolExecutor(READERS, "edge-disk-read")
        self.blobs = Blobs(self.files, self.readers)
        self.log: Log
        self._clock = clock
        self._session = secrets.randbits(63)
        self._writing = Writing(self._settle, self._failed)
        self._pending: dict[str, _Saved] = {}
        self._pending_bytes = 0
        self._coming: dict[int, int] = {}  # how many entries of a generation are on their way to the disk
        self._blob_base = self._blob_next = 0
        self._folder: Folder
        self._journal: Journal
        self._open = False
        self._holders = 0
        self._counts = {"hits": 0, "misses": 0, "dropped": 0, "damaged": 0, "strays": 0}

    # -- its life

    async def __aenter__(self) -> DiskStore:
        self._holders += 1
        if self._holders > 1:  # an edge that takes the place of another shares its store for a while
            return self
        try:
            await self._writing.run(self._start)
        except BaseException:
            self._holders = 0
            self._writing.shutdown()
            self.readers.shutdown()
            raise
        self._open = True
        self._submit(self._sweep)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._holders -= 1
        if self._holders > 0:
            return
        await self.sync()
        self._open = False
        await self._writing.run(self._stop)
        self._writing.shutdown()
        self.readers.shutdown()

    def _start(self) -> None:
        self._folder = folder = claim(self.path, self._shards, self.files)
        self.blobs.folder = folder.blobs
        self.log = Log(folder.segments, self.size, record.Codec(folder.secret()), self.files, self.blobs.drop)
        self.log.judge = self._judge
        self.log.generation = lambda: self.bans.generation
        recover(self.log)
        self._blob_base = self._blob_next = self.log.next_number << 32
        self._journal = Journal(folder.journal, self.bans, self.files)
        self._journal.open(self._oldest())
        self.log.make_room(0)

    def _stop(self) -> None:
        for main in (False, True):
            self.log.seal(main)
        self.blobs.close()
        for segment in self.log.segments.values():
            segment.close()
        self._journal.close()
        self._folder.release()

    def _oldest(self) -> int:
        """No entry is of an older generation, neither on disk nor on its way there."""
        return min(
            [self.bans.generation, *list(self._coming), *(s.generation for s in list(self.log.segments.values()))]
        )

    # -- the store's protocol

    def holds(self, key: str) -> bool:
        """Whether there is an entry for ``key``, as far as the index knows."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending.entry is not None
        return record.short(record.digest_of(key.encode())) in self.log.index

    async def load(self, key: str) -> Entry | None:
        """The entry of ``key``, checked; None when it is gone, damaged or purged."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending.entry
        digest = record.digest_of(key.encode())
        for _ in range(3):  # a record may be moved while it is read
            found = self.log.find(record.short(digest))
            if found is None:
                break
            entry = await self._load(key, digest, *found)
            if entry is not None:
                self._counts["hits"] += 1
                return entry
            if self.log.find(record.short(digest)) == found:
                break
        self._counts["misses"] += 1
        return None

    def save(self, entry: Entry, generation: int | None = None) -> None:
        """Keep an entry whose body is bytes, or whose body is already in this store (then only its fields are written anew)."""
        born = self.bans.generation if generation is None else generation
        size = entry.size
        body = entry.body
        if not isinstance(body, bytes):
            content = body._stored if isinstance(body, Fill) else body
            if isinstance(content, BlobContent):
                self._put(entry, size - content.length, born, self._referring(entry, born, content))
            return
        if len(body) > INLINE:
            self._save_large(entry, body)
            return
        if self._pending_bytes + size > PENDING or len(entry.wire) > record.MAX_META // 2:
            self._counts["dropped"] += 1
            self.remove(entry.key)  # an older version must not come back in its place
            return
        meta = self._meta(entry)
        digest = record.digest_of(entry.key.encode())
        scopes = Scopes.of(entry.key, entry.tags)
        self._put(entry, size, born, lambda: self._append(digest, born, scopes, meta, body))

    update = save

    def _save_large(self, entry: Entry, body: bytes) -> None:
        fill = self.open(entry.key, len(body)) if self._pending_bytes + len(body) <= PENDING else None
        if fill is None:
            self._counts["dropped"] += 1
            self.remove(entry.key)
            return
        fill.write(body)
        fill.commit(entry)

    def open(self, key: str, length: int | None) -> Fill | None:
        """Begin a body that comes bit by bit; None when it is longer than a quarter of the store, or the store is closed."""
        if not self._open or (length is not None and length > self.max_object):
            return None
        number, self._blob_next = self._blob_next, self._blob_next + 1
        generation = self.bans.generation
        self._coming[generation] = self._coming.get(generation, 0) + 1
        return Fill(self, key, number, length, generation)

    def remove(self, key: str) -> None:
        """Forget ``key``."""
        if not self._open or not self.holds(key):
            return
        digest = record.digest_of(key.encode())
        saved = _Saved(None, 0)
        self._replace_pending(key, saved)

        def operation() -> Callable[[], None]:
            self.log.delete(digest)
            return lambda: self._settled(key, saved)

        self._submit(operation)

    def purge(self, purge: Purge) -> int:
        """Ban what matches: in force when this returns, for good when ``sync`` does. Returns how many were found waiting to be written."""
        line = self.bans.add(purge.kind, purge.value, soft=purge.soft)
        found = 0
        for key, saved in list(self._pending.items()):
            if saved.entry is not None and (purge.kind, purge.value) in self.bans.names(
                Scopes.of(key, saved.entry.tags)
            ):
                found += 1
                if purge.soft:
                    saved.entry.lifetime = min(saved.entry.lifetime, saved.entry.age(self._clock.monotonic()))
                else:
                    self._replace_pending(key, _Saved(None, 0))
        self._submit(lambda: self._journal.add(line))
        return found

    async def sync(self) -> None:
        """Return when everything asked for so far is done, and purges are on the medium."""
        await self._writing.sync()

    def stats(self) -> dict[str, int]:
        """Entries, bytes and what happened since the start."""
        counters = self.log.counters
        return {
            "entries": len(self.log.index),
            "bytes": self.log.total,
            "capacity": self.size,
            "segments": len(self.log.segments),
            "waiting_bytes": self._pending_bytes,
            "bans": len(self.bans),
            "written": counters.written,
            "evicted": counters.evicted,
            "promoted": counters.promoted,
            "errors": counters.errors,
            **self._counts,
            "dropped": self._counts["dropped"] + counters.dropped,
            "damaged": self._counts["damaged"] + counters.damaged,
        }

    # -- a fill's door

    def fill(self, fill: Fill, offset: int, data: bytes) -> None:
        """Write a piece of a fill; it is told when that is done."""
        if not self._open or offset + len(data) > self.max_object:
            fill.damaged()
            return

        def operation() -> Callable[[], None]:
            error: OSError | None = None
            if not fill.failed:
                try:
                    fill.put(offset, data)
                except OSError as problem:
                    self.log.counters.errors += 1
                    error = problem
            return lambda: done(error)

        def done(error: OSError | None) -> None:
            self._pending_bytes -= len(data)
            fill.written(offset + len(data), error)

        self._pending_bytes += len(data)
        self._submit(operation)

    def commit(self, fill: Fill, entry: Entry) -> None:
        """Write the record of a fill that is complete."""
        meta = self._meta(entry)
        scopes = Scopes.of(entry.key, entry.tags)
        digest = record.digest_of(entry.key.encode())

        def operation() -> Callable[[], None] | None:
            if fill.failed:
                return None
            number, length, crcs, file = fill.finished()
            assert file is not None
            self._append(digest, fill.generation, scopes, meta, crcs, number, length)
            file.verified = bytearray(b"\x01" * record.blocks(length))
            content = BlobContent(
                self.blobs, number, file, length, memoryview(crcs).cast("I"), lambda: self._forget(digest)
            )
            return lambda: self._committed(fill, content)

        self._put(entry, 0, fill.generation, operation)
        self.ended(fill)

    def ended(self, fill: Fill) -> None:
        """A fill is on disk, or never will be. Done again, it does nothing."""
        if fill.coming:
            fill.coming = False
            self._came(fill.generation)

    def _came(self, generation: int) -> None:
        self._coming[generation] -= 1
        if not self._coming[generation]:
            del self._coming[generation]

    def give_up(self, fill: Fill) -> None:
        """Remove what a fill wrote; those who read it read on."""

        def operation() -> None:
            fill.failed = True
            if fill.on_disk:
                self.log.filling -= fill.on_disk
                fill.on_disk = 0
            self.blobs.drop(fill.number)

        self.ended(fill)
        self._submit(operation)

    # -- writing: what runs in the writing thread

    def _append(
        self, digest: bytes, born: int, scopes: Scopes, meta: bytes, tail: bytes, blob: int = 0, length: int = 0
    ) -> None:
        verdict = self.bans.verdict(scopes, born)
        if verdict.hard:
            self.log.delete(digest)
            if blob:
                self.log.filling -= length
                self.blobs.drop(blob)
            return
        flags = (record.IN_BLOB if blob else 0) | (record.SOFT if verdict.soft else 0)
        data = self.log.codec.pack(
            digest, self.bans.generation, meta, tail, flags=flags, body_length=length if blob else None, blob=blob
        )  # fmt: skip
        self.log.append(digest, data, record.HEAD.size + len(meta) + len(tail), blob, length)

    def _referring(self, entry: Entry, born: int, content: BlobContent) -> Operation:
        """Write the record of a blob anew."""
        meta = self._meta(entry)
        scopes = Scopes.of(entry.key, entry.tags)
        digest = record.digest_of(entry.key.encode())

        def operation() -> None:
            found = self.log.find(record.short(digest))
            if found is None or found[0].blobs.get(record.place(found[1], found[2]), (0, 0, 0))[1] != content.number:
                return  # evicted or replaced meanwhile
            self.log.filling += content.length  # until the new record speaks of it
            self._append(digest, born, scopes, meta, content.crcs, content.number, content.length)

        return operation

    def _judge(self, kept: record.Record) -> int | None:
        """A record that is moved: dropped if it is banned, else held against every ban so far."""
        saved = msgpack.unpackb(kept.meta)
        verdict = self.bans.verdict(Scopes.of(saved[0]["key"], saved[0]["tags"]), kept.head.generation)
        if verdict.hard:
            return None
        return kept.head.flags | (record.SOFT if verdict.soft else 0)

    def _flush_journal(self) -> None:
        try:
            self._journal.flush(self._oldest())
        except OSError:  # a full disk: a purge is worth more than what is stored
            self.log.counters.errors += 1
            self.log.make_room(self.log.segment_size)
            try:
                self._journal.rewrite(self._oldest())
            except OSError:
                self.log.counters.errors += 1  # it stays in force here, and is tried again with the next one

    def _sweep(self) -> None:
        self._counts["strays"] += drop_strays(self.log, self._folder.blobs, self._blob_base)

    # -- the order of operations

    def _put(self, entry: Entry, size: int, born: int, work: Operation) -> None:
        if not self._open:
            return
        saved = _Saved(entry, size)
        self._replace_pending(entry.key, saved)
        self._coming[born] = self._coming.get(born, 0) + 1

        def operation() -> Callable[[], None]:
            try:
                then = work()
            except OSError:
                self.log.counters.errors += 1
                then = None

            def done() -> None:
                if then is not None:
                    then()
                self._settled(entry.key, saved)
                self._came(born)

            return done

        self._submit(operation)

    def _replace_pending(self, key: str, saved: _Saved) -> None:
        old = self._pending.get(key)
        self._pending_bytes += saved.size - (old.size if old is not None else 0)
        self._pending[key] = saved

    def _settled(self, key: str, saved: _Saved) -> None:
        if self._pending.get(key) is saved:
            del self._pending[key]
            self._pending_bytes -= saved.size

    def _committed(self, fill: Fill, content: BlobContent) -> None:
        self.blobs.keep(content.number, content.file)
        fill.kept(content)

    def _submit(self, operation: Operation) -> None:
        if self._open:
            self._writing.submit(operation)

    def _settle(self) -> None:
        """The end of a batch, in the writing thread: its records leave in one write for each queue, its purges in one sync."""
        self.log.flush()
        self._flush_journal()

    def _failed(self, error: OSError) -> None:
        self.log.counters.errors += 1

    # -- reading

    async def _load(self, key: str, digest: bytes, segment: Any, offset: int, length: int) -> Entry | None:
        loop = asyncio.get_running_loop()
        try:
            data = self.files.read_cached(segment.fd, length, offset) if length <= PROMPT else None
            if data is None:
                data = await loop.run_in_executor(self.readers, self.files.read, segment.fd, length, offset)
            kept = self.log.codec.read(data)
            if kept.head.digest != digest:
                raise record.Damaged("the record is of another key")
            saved = msgpack.unpackb(kept.meta)
            if saved[0]["key"] != key:
                return None
            verdict = self.bans.verdict(Scopes.of(key, saved[0]["tags"]), kept.head.generation)
            if verdict.hard:
                self._forget(digest)
                return None
            body = await self._content(kept, digest) if kept.head.flags & record.IN_BLOB else kept.tail
        except RuntimeError:  # the store is being closed
            return None
        except (OSError, record.Damaged, ValueError, KeyError):
            if self.log.find(record.short(digest)) == (segment, offset, length):
                self._counts["damaged"] += 1
                self._forget(digest)
            return None
        self.log.touch(record.short(digest))
        return self._restored(saved, body, verdict.soft or bool(kept.head.flags & record.SOFT))

    async def _content(self, kept: record.Record, digest: bytes) -> BlobContent:
        number, length = kept.head.blob, kept.head.body_length
        file = self.blobs.opened(number)
        if file is None:
            loop = asyncio.get_running_loop()
            file = await loop.run_in_executor(self.readers, self.blobs.open, number, length)
            self.blobs.keep(number, file)
        return BlobContent(
            self.blobs, number, file, length, memoryview(kept.tail).cast("I"), lambda: self._forget(digest)
        )

    def _forget(self, digest: bytes) -> None:
        if self._open:
            self._submit(lambda: self.log.delete(digest))

    def _meta(self, entry: Entry) -> bytes:
        now = self._clock.monotonic()
        return msgpack.packb([entry.snapshot(now), self._session, now, self._clock.wall()])  # type: ignore[no-any-return]

    def _restored(self, saved: list[Any], body: Any, soft: bool) -> Entry:
        snapshot, session, monotonic, wall = saved
        now = self._clock.monotonic()
        # within one process the monotonic clock is the better witness; over a restart only the wall clock is there
        elapsed = now - monotonic if session == self._session else self._clock.wall() - wall
        entry = Entry.restored(snapshot, body, now, elapsed)
        if soft:
            entry.lifetime = min(entry.lifetime, entry.age(now))
        return entry
