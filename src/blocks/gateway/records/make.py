"""A store of records by its name: ``memory``, ``redis``, or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.core.errors import ConfigError

from .contract import Records
from .disk import DiskRecords
from .memory import MAX_BYTES, MemoryRecords
from .shared import SharedRecords

if TYPE_CHECKING:
    from blocks.gateway.site import Site


def make_records(name: str, site: Site, *, purpose: str, room: int = MAX_BYTES) -> Records:
    """The store, the same one after a reload. ``memory`` holds ``room`` bytes; ``disk:PATH`` is a file; ``redis`` is that of ``[redis]``.

    Raises ``ConfigError``.
    """
    kind, _, path = name.partition(":")
    if kind == "memory" and not path:
        return site.kept(("records", purpose, "memory", room), lambda: MemoryRecords(room, clock=site.clock))
    if kind == "disk" and path:
        file = site.base / path
        return site.kept(("records", "disk", str(file)), lambda: DiskRecords(file, clock=site.clock))
    if kind == "redis" and not path:
        return SharedRecords(site.redis(), prefix=f"blocks:{purpose}:")
    raise ConfigError(f"{name!r} is no store; write memory, disk:PATH or redis")
