"""A segment is one file of records, written front to back once and removed whole: the unit in which the disk forgets."""

from __future__ import annotations

import os

from . import record
from .files import Files


class Segment:
    """One segment file. ``size`` is its bytes, ``blob_bytes`` those of the bodies it refers to, ``live`` the records that count.

    ``main`` says which queue of S3-FIFO it belongs to. Until it is sealed, ``slots`` holds what its side file will say.
    """

    __slots__ = (
        "_codec",
        "_files",
        "_folder",
        "blob_bytes",
        "blobs",
        "fd",
        "generation",
        "live",
        "main",
        "number",
        "sealed",
        "size",
        "slots",
    )

    def __init__(self, files: Files, codec: record.Codec, folder: str, number: int, main: bool) -> None:
        self._codec = codec
        self._files = files
        self._folder = folder
        self.number = number
        self.main = main
        self.generation = 0  # no record in it is older
        self.fd = -1
        self.size = 0
        self.live = 0
        self.blob_bytes = 0
        self.blobs: dict[int, tuple[int, int, int]] = {}  # place → (short key, blob, size)
        self.slots: list[tuple[int, int]] = []
        self.sealed = False

    @property
    def path(self) -> str:
        """The file of records."""
        return os.path.join(self._folder, f"{self.number:016d}.seg")

    @property
    def side_path(self) -> str:
        """The side file: the same as an index, quick to load."""
        return os.path.join(self._folder, f"{self.number:016d}.idx")

    @property
    def weight(self) -> int:
        """Bytes on disk that go when this segment goes."""
        return self.size + self.blob_bytes

    def create(self) -> None:
        """Make the file. Raises ``OSError``."""
        self.fd = self._files.open(self.path, create=True)
        self._files.write(self.fd, record.segment_head(self.number, self.main, self.generation), 0)
        self.size = record.SEGMENT_HEAD

    def open(self) -> None:
        """Open a file that exists. Raises ``OSError``."""
        self.fd = self._files.open(self.path)
        self.size = self._files.size(self.fd)

    def seal(self) -> None:
        """Write the side file; nothing is appended any more. A side file that cannot be written is only missed at the next start."""
        self.sealed = True
        blobs = [(short, place, blob, size) for place, (short, blob, size) in self.blobs.items()]
        try:
            self._files.replace(self.side_path, record.pack_side(self.number, self.slots, blobs))
        except OSError:
            pass
        self.slots = []

    def entries(self) -> list[tuple[int, int]]:
        """(short key, place) of its records, from the side file or, if that is damaged, from the records themselves."""
        if not self.sealed:
            return list(self.slots)
        data = self._files.load(self.side_path)
        if data is not None:
            try:
                return list(record.slots_of(record.read_side(data, self.number).slots))
            except record.Damaged:
                pass
        return [
            (record.short(head.digest), 0 if head.flags & record.GONE else record.place(offset, head.length))
            for offset, head in self._codec.scan(self._files.read(self.fd, self.size, 0))
        ]

    def remove(self) -> None:
        """Remove both files; a thread that is reading reads on: the descriptor is closed when nobody holds the segment."""
        for path in (self.path, self.side_path):
            try:
                self._files.remove(path)
            except OSError:
                pass  # it is found and removed, or used, at the next start

    def close(self) -> None:
        """Close the descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close(fd)

    def __del__(self) -> None:
        self.close()
