"""Opening a log: finds the newest snapshot, checks what must be checked, cuts a torn tail, keeps damage aside.

What is promised is in FORMAT.md. Only the segments that the snapshot does not cover are read whole; of the others the
index file is read, and rebuilt where it is missing or bad.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

from blocks.broker.errors import Damaged

from .batch import Batch, decode, encode
from .commit import Segment
from .disk import Disk, read_whole, replace_whole
from .index import Index, decode_index
from .log import CACHE_BYTES, SEGMENT_BYTES, Log
from .segment import HEADER_SIZE, REWRITTEN, Scan, SegmentHeader, WrongVersion, decode_header, scan

CLEAN = "clean"
_CLEAN_MAGIC = b"BLKCLN\x01\x00"
_SNAPSHOT_MAGIC = b"BLKSNP\x01\x00"
KEPT_SNAPSHOTS = 2


_OURS = re.compile(
    r"\d{12}\.(log|index|removed)(\.tmp)?|\d{16}\.snapshot(\.tmp)?|clean(\.tmp)?"
)  # the rest is not touched


class Recovered(NamedTuple):
    """What a data directory holds: the log, the newest snapshot's state, and the batches that follow it."""

    log: Log
    state: Any | None
    after: list[Batch]
    snapshot: int  # the number of the last batch that the state covers
    replayed_bytes: int


def _sealed_file(magic: bytes, body: bytes) -> bytes:
    return magic + crc32(body, crc32(magic)).to_bytes(4, "little") + body


def _open_file(magic: bytes, data: bytes, name: str) -> Any:
    body = data[12:]
    if data[:6] != magic[:6] or int.from_bytes(data[8:12], "little") != crc32(body, crc32(data[:8])):
        raise Damaged(f"{name} is damaged")
    if data[:8] != magic:
        raise WrongVersion(f"{name} has format version {int.from_bytes(data[6:8], 'little')}; this reads version 1")
    return msgpack.unpackb(body, strict_map_key=False, unicode_errors="surrogatepass")


def snapshot_name(number: int) -> str:
    """The file of the snapshot that covers the batches up to ``number``."""
    return f"{number:016d}.snapshot"


def our_files(disk: Disk, ending: str) -> list[str]:
    """Files of the log with that ending, oldest first; others that lie in the directory are not ours to touch."""
    return sorted(name for name in disk.names() if name.endswith(ending) and _OURS.fullmatch(name))


def encode_snapshot(number: int, segments: list[tuple[int, int]], state: Any) -> bytes:
    """A snapshot's file: the state after batch ``number``, and the (id, salt) of the segments that there were."""
    body: bytes = msgpack.packb((number, segments, state), unicode_errors="surrogatepass")
    return _sealed_file(_SNAPSHOT_MAGIC, body)


def write_clean(disk: Disk, log: Log) -> None:
    """Note where the log ends, so that a log cut after a clean stop is noticed."""
    active = log.active
    ends = (active.header.id, active.length, log.next_number) if active else (0, 0, log.next_number)
    replace_whole(disk, CLEAN, _sealed_file(_CLEAN_MAGIC, msgpack.packb(ends)))


def index_name(header: SegmentHeader) -> str:
    """The index file of a segment."""
    return f"{header.id:012d}.index"


def removed_name(segment: int) -> str:
    """The marker that says that a segment was emptied and removed on purpose; it goes once no snapshot knows the segment."""
    return f"{segment:012d}.removed"


class Recovery:
    """One opening of a data directory. ``repair`` False changes nothing on disk (for ``verify``)."""

    def __init__(
        self,
        disk: Disk,
        random: Random,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        cache_bytes: int = CACHE_BYTES,
        repair: bool = True,
        whole: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.disk = disk
        self.repair = repair
        self.whole = whole  # read every segment, not only those that the snapshot does not cover
        self.problems: list[str] = []
        self.known: list[tuple[int, int]] = []  # the (id, salt) of the segments that the snapshot knows
        self._random = random
        self._progress = progress
        self._segment_bytes = segment_bytes
        self._cache_bytes = cache_bytes
        self._names = {name for name in disk.names() if _OURS.fullmatch(name)}

    def run(self) -> Recovered:
        """Open the log; raises ``WrongVersion`` for another format's files."""
        number, self.known, state = self._snapshot()
        headers = self._headers()
        stream = headers[0].stream if headers else self._random.getrandbits(63)
        log = Log(self.disk, stream, self._random, segment_bytes=self._segment_bytes, cache_bytes=self._cache_bytes)
        self._check_missing(headers, self.known, number)
        after: list[Batch] = []
        replayed = read = 0
        total = sum(self._size(header.name) for header in headers) if self._progress is not None else 0
        for at, header in enumerate(headers):
            if header.stream != stream:
                self.problems.append(f"{header.name} belongs to another broker's log; it was left out")
                continue
            last = at == len(headers) - 1
            segment, batches = self._segment(header, number, last)
            log.add_segment(segment)
            log.next_number = max(log.next_number, segment.index.end)
            for topic, span in segment.index.spans.items():
                log.note_span(topic, segment, span.first)
            after += batches
            replayed += segment.length if batches else 0
            if self._progress is not None:
                read += self._size(header.name)
                self._progress(read, total)
        self._check_end(log, number)
        log.next_number = max(log.next_number, number + 1)
        self._tidy(log)
        log.damage = self.problems
        return Recovered(log, state, after, number, replayed)

    def _snapshot(self) -> tuple[int, list[tuple[int, int]], Any | None]:
        names = sorted((n for n in self._names if n.endswith(".snapshot")), reverse=True)
        for name in names:
            try:
                number, segments, state = _open_file(_SNAPSHOT_MAGIC, read_whole(self.disk, name), name)
                return number, [tuple(s) for s in segments], state
            except WrongVersion:
                raise
            except OSError as error:
                self.problems.append(f"snapshot {name}: {error}; an older one, or the log itself, is used")
            except (Damaged, ValueError) as error:
                self._quarantine(name, f"snapshot {name}: {error}; an older one, or the log itself, is used")
                self._drop(name)
        return 0, [], None

    def _headers(self) -> list[SegmentHeader]:
        names = sorted(n for n in self._names if n.endswith(".log"))
        headers = []
        for name in names:
            file = self.disk.open(name)
            try:
                head = file.read(0, HEADER_SIZE)
                size = file.size()
            finally:
                file.close()
            try:
                header = decode_header(head)
                if header.name != name:
                    raise Damaged(f"its header says {header.name}")
                headers.append(header)
            except Damaged as error:
                if size <= HEADER_SIZE and name == names[-1]:
                    self._drop(name)  # a crash came while the segment was being made: nothing was ever in it
                else:
                    self._quarantine(name, f"{name}: {error}")
                    self._drop(name)
        return headers

    def _check_missing(self, headers: list[SegmentHeader], known: list[tuple[int, int]], number: int) -> None:
        there = {header.id for header in headers}
        for segment, _ in known:
            if segment not in there and removed_name(segment) not in self._names:
                self.problems.append(f"segment {segment} is missing: the snapshot at batch {number} knows it")

    def _segment(self, header: SegmentHeader, covered: int, last: bool) -> tuple[Segment, list[Batch]]:
        if not last and not self.whole:
            index = self._index(header)
            if index is not None and index.end - 1 <= covered:
                return Segment(header, index, index.length), []
        data = read_whole(self.disk, header.name)
        found = scan(data, header)
        if found.holes or (found.torn and not last):
            return self._damaged(header, data, found, covered)
        if found.torn and CLEAN in self._names:
            self._quarantine(
                header.name, f"{header.name}: {found.torn} bytes at {found.end} are bad after a clean stop"
            )
        if found.torn and self.repair:
            self._cut(header, found.end)
        segment = Segment(header, Index(), HEADER_SIZE)
        batches = self._take(segment, data, found.batches, covered)
        segment.length = segment.synced = max(found.end, HEADER_SIZE)
        segment.index.length = segment.length
        if not last:
            segment.index.end = max(segment.index.end, header.end, header.first)
            if self.repair and self._index(header) is None:
                replace_whole(self.disk, index_name(header), segment.index.encode(header))
        return segment, batches

    def _take(self, segment: Segment, data: bytes, batches: list[tuple[int, int]], covered: int) -> list[Batch]:
        after = []
        for position, _ in batches:
            batch = decode(data, position, payloads=False)
            batch.segment = segment.header.id
            segment.index.add(batch)
            if batch.number > covered:
                after.append(batch)
        segment.index.end = max(segment.index.end, segment.header.first)
        return after

    def _size(self, name: str) -> int:
        file = self.disk.open(name)
        try:
            return file.size()
        finally:
            file.close()

    def _index(self, header: SegmentHeader) -> Index | None:
        name = index_name(header)
        if name not in self._names:
            return None
        try:
            return decode_index(read_whole(self.disk, name), header, self._size(header.name))
        except (Damaged, ValueError, OSError, msgpack.exceptions.UnpackException):
            return None  # it is a cache: rebuilt from the segment

    def _cut(self, header: SegmentHeader, end: int) -> None:
        file = self.disk.open(header.name)
        try:
            file.truncate(max(end, HEADER_SIZE))
            file.sync()
        finally:
            file.close()

    def _damaged(self, header: SegmentHeader, data: bytes, found: Scan, covered: int) -> tuple[Segment, list[Batch]]:
        """Keep the file aside, and go on with a copy that has only what is whole."""
        where = ", ".join(f"{length} bytes at {at}" for at, length in found.holes)
        where = where or f"{found.torn} bytes at {found.end}"
        self._quarantine(header.name, f"{header.name}: damaged {where}; {len(found.batches)} batches are whole")
        end = decode(data, found.batches[-1][0], payloads=False).number + 1 if found.batches else header.first
        rewritten = header._replace(
            salt=self._random.getrandbits(63) << 1 | 1, flags=header.flags | REWRITTEN, end=max(header.end, end)
        )
        content = [rewritten.encode()]
        position = HEADER_SIZE
        batches: list[tuple[int, int]] = []
        for at, _ in found.batches:
            encoded = encode(decode(data, at), rewritten.mark, rewritten.seed, position)
            content.append(encoded)
            batches.append((position, len(encoded)))
            position += len(encoded)
        whole = b"".join(content)
        if self.repair:
            replace_whole(self.disk, header.name, whole)
        segment = Segment(rewritten, Index(), position)
        after = self._take(segment, whole, batches, covered)
        segment.index.end = max(segment.index.end, end)
        segment.index.length = position
        return segment, after

    def _quarantine(self, name: str, problem: str) -> None:
        self.problems.append(problem)
        if not self.repair:
            return
        data = read_whole(self.disk, name)
        target = f"quarantine/{name}.{crc32(data):08x}"
        for path, content in ((target, data), (target + ".txt", problem.encode() + b"\n")):
            file = self.disk.open(path, create=True)
            try:
                file.write(0, [content])
                file.sync()
            finally:
                file.close()
        self.disk.sync_directory()

    def _drop(self, name: str) -> None:
        if self.repair:
            self.disk.unlink(name)
            self.disk.sync_directory()

    def _check_end(self, log: Log, number: int) -> None:
        if CLEAN in self._names:
            try:
                segment, length, following = _open_file(_CLEAN_MAGIC, read_whole(self.disk, CLEAN), CLEAN)
            except (Damaged, ValueError) as error:
                self.problems.append(str(error))
            else:
                there = log.segments.get(segment)
                if segment and (there is None or there.length < length or log.next_number < following):
                    self.problems.append(
                        f"the log was stopped cleanly before batch {following} but ends before batch {log.next_number}:"
                        " its end is missing"
                    )
        elif log.next_number <= number:
            self.problems.append(f"the log ends before batch {log.next_number}, the snapshot covers batch {number}")

    def _tidy(self, log: Log) -> None:
        if not self.repair:
            return
        for name in self._names:
            orphan = name.endswith(".index") and int(name[:12]) not in log.segments
            if name.endswith(".tmp") or orphan:
                self.disk.unlink(name)
        if CLEAN in self._names:
            self.disk.unlink(CLEAN)
        self.disk.sync_directory()
        if log.active is not None:
            self._settle(log)

    def _settle(self, log: Log) -> None:
        """What was read back must be on the medium before anyone is told of it: a crash may have left it unsynced."""
        assert log.active is not None
        file = log.active.file = self.disk.open(log.active.header.name)
        file.sync()


__all__ = ["Recovered", "Recovery", "encode_snapshot", "index_name", "snapshot_name", "write_clean"]
