"""An entry is a stored response and what is needed to reuse it: times, validators' home, tags, and a body that may still be filling.

Times of an entry are on the monotonic clock, so that a jump of the wall clock neither ages nor rejuvenates what is stored.
A store that outlives the process turns them into an age and a wall time (``snapshot``) and back (``restored``).
"""

from __future__ import annotations

from typing import Any, Protocol

from blocks.http.body import Stream
from blocks.http.message import Pair, Section, wire_name

# What an entry was told by its origin, as bits of ``Entry.flags``.
NO_CACHE = 1  # validate before each use (RFC 9111 §5.2.2.4)
MUST_REVALIDATE = 2  # never stale, not even when the origin is down (§5.2.2.2, §5.2.2.8, s-maxage §5.2.2.10)
IMMUTABLE = 4  # a reload by the client does not validate it while it is fresh (RFC 8246)
PARTIAL = 8  # the body is a ``Parts`` with holes (§3.3)
MARKER = 16  # no response: the resource varies, and its variants are under keys of their own (§4.1)
PASS = 32  # no response: answers of this resource were not storable, do not make requests wait for each other (hit-for-miss)
PUSHED = 64  # belongs to a release: fresh until the release goes
TRANSFORM = 256  # coded twins may be made of it (gzip, br, zstd)
BOUNDED = (
    512  # stale only within stale-while-revalidate and stale-if-error, no grace: s-maxage together with one of them
)
HEURISTIC = 128  # the lifetime was guessed from Last-Modified (§4.2.2)


class Content(Protocol):
    """A body that is too large to be one ``bytes``, or lies in a file, or is still coming.

    ``length`` is its size in bytes (None until it is known); ``complete`` says that every byte is there.
    """

    @property
    def length(self) -> int | None:
        """Size in bytes of the whole, or None while unknown."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        ...

    def stream(self, start: int = 0, stop: int | None = None) -> Stream:
        """The bytes from ``start`` up to (not including) ``stop`` as a stream with its ``length`` set when it is known.

        Several streams of one content may be read at once, each at its own speed.
        """
        ...

    def release(self) -> None:
        """The entry is gone from its store: free what is held as soon as the last stream has ended."""
        ...


Body = bytes | Content


class Kept(Section):
    """A header section kept as its HTTP/1 field lines: one object for each entry; fields are cut out when somebody looks."""

    __slots__ = ("_cut",)
    _cut: list[Pair] | None

    def __init__(self, wire: bytes) -> None:
        super().__init__([])
        self._wire = wire
        self._dated = True  # what is stored has a Date: the step that stores adds it

    @property
    def pairs(self) -> list[Pair]:
        """(lower-case name, value) in order."""
        cut = self._cut
        if cut is None:
            cut = []
            for line in (self._wire or b"").split(b"\r\n"):
                if line:
                    name, _, value = line.partition(b": ")
                    cut.append((name.lower(), value))
            self._cut = cut
        return cut

    @pairs.setter
    def pairs(self, pairs: list[Pair]) -> None:
        self._cut = pairs or None


def wire_of(pairs: list[Pair]) -> bytes:
    """Field lines, each ended by CRLF, without Content-Length, Age and Cache-Status: those are made for each answer."""
    lines = [wire_name(name) + value for name, value in pairs if name not in _MADE_LATER]
    lines.append(b"")
    return b"\r\n".join(lines)


_MADE_LATER = frozenset((b"content-length", b"age"))


class Entry:
    """A stored response.

    ``key`` is the cache key (``http://host/path?query``, for a variant followed by NUL and its selecting values).
    ``born`` is the monotonic time at which the response's age was 0; ``lifetime``, ``revalidate`` (stale-while-revalidate),
    ``on_error`` (stale-if-error, -1 when the origin did not say) are seconds. ``wire`` holds the field lines that are stored.
    ``names`` are the selecting fields (Vary); for a MARKER ``variants`` are the keys of what is stored for them.
    Below the age ``early`` a hit is nothing but a hit; from there on it may be time to refresh. ``tags`` are for purging. ``size`` is
    what the entry weighs in a store, bytes. ``frequency``, ``queue`` and ``weight`` belong to the memory store, ``rendered`` and
    ``second`` to the step that delivers.
    """

    __slots__ = (
        "body",
        "born",
        "early",
        "flags",
        "frequency",
        "key",
        "lifetime",
        "names",
        "on_error",
        "queue",
        "rendered",
        "revalidate",
        "second",
        "status",
        "tags",
        "variants",
        "weight",
        "wire",
    )

    def __init__(
        self,
        key: str,
        status: int,
        wire: bytes,
        body: Body,
        *,
        born: float,
        lifetime: float,
        revalidate: float = 0.0,
        on_error: float = -1.0,
        flags: int = 0,
        names: tuple[bytes, ...] = (),
        tags: tuple[str, ...] = (),
    ) -> None:
        self.key = key
        self.status = status
        self.wire = wire
        self.body: Body = body
        self.born = born
        self.lifetime = lifetime
        self.early = lifetime
        self.revalidate = revalidate
        self.on_error = on_error
        self.flags = flags
        self.names = names
        self.tags = tags
        self.variants: dict[str, None] | None = None
        self.frequency = 0
        self.queue = 0
        self.weight = 0
        self.rendered: Any = None
        self.second = -1

    @property
    def section(self) -> Section:
        """The stored fields, without Age and Content-Length."""
        return Kept(self.wire)

    def find(self, name: bytes) -> bytes | None:
        """The first line of a lower-case field name, without building the section."""
        wire, line = self.wire, wire_name(name)
        start = 0 if wire.startswith(line) else wire.find(b"\r\n" + line) + 2
        if start == 1:
            return None
        return wire[start + len(line) : wire.find(b"\r\n", start)]

    def age(self, now: float) -> float:
        """Seconds since the origin made or validated it (RFC 9111 §4.2.3); ``now`` is monotonic."""
        age = now - self.born
        return age if age > 0.0 else 0.0

    def expire(self, now: float) -> None:
        """Make it stale from now on (a soft purge)."""
        self.lifetime = self.early = min(self.lifetime, self.age(now))

    @property
    def expires(self) -> float:
        """The monotonic time at which it turns stale."""
        return self.born + self.lifetime

    @property
    def length(self) -> int | None:
        """Size of the body in bytes, or None while it is filling."""
        body = self.body
        return len(body) if isinstance(body, bytes) else body.length

    @property
    def size(self) -> int:
        """What it weighs in memory: body, fields, key, and 500 bytes for the objects around them.

        A content weighs the bytes in memory that it names in ``held``; without that it lies in a file, and weighs nothing.
        """
        body = self.body
        held: int = len(body) if isinstance(body, bytes) else getattr(body, "held", 0)
        return held + len(self.wire) + len(self.key) + 500

    def snapshot(self, now: float) -> dict[str, Any]:
        """Everything but the body as plain values (msgpack's), with the age at monotonic ``now`` in place of ``born``."""
        return {
            "key": self.key,
            "status": self.status,
            "wire": self.wire,
            "age": now - self.born,
            "lifetime": self.lifetime,
            "revalidate": self.revalidate,
            "on_error": self.on_error,
            "flags": self.flags,
            "names": list(self.names),
            "tags": list(self.tags),
            "variants": list(self.variants or ()),
        }

    @classmethod
    def restored(cls, saved: dict[str, Any], body: Body, now: float, elapsed: float) -> Entry:
        """The entry of a ``snapshot`` that was taken ``elapsed`` seconds ago on the wall clock (below 0 counts as 0)."""
        entry = cls(
            saved["key"], saved["status"], saved["wire"], body,
            born=now - saved["age"] - max(0.0, elapsed), lifetime=saved["lifetime"], revalidate=saved["revalidate"],
            on_error=saved["on_error"], flags=saved["flags"], names=tuple(saved["names"]), tags=tuple(saved["tags"]),
        )  # fmt: skip
        if saved["variants"]:
            entry.variants = dict.fromkeys(saved["variants"])
        return entry

    def __repr__(self) -> str:
        return f"<Entry {self.status} {self.key!r}>"
