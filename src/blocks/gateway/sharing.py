"""What several workers, or several gateways, do not know of each other: told once, where a file says nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.http.handler import walk

from .auth.signature import Signatures
from .limits.rule import Limit
from .pagination import Pagination
from .records.memory import MemoryRecords
from .snapshot import Snapshot


def apart(snapshot: Snapshot) -> Iterator[str]:
    """Sentences on what each process keeps to itself, and what would share it."""
    limits: list[Limit] = [rule.limit for rule in snapshot.rules()]
    if any(limit.store == "memory" for limit in limits):
        yield "each worker counts limits of store = 'memory' by itself; 'redis' counts for all"
    parts = [part for root in snapshot.parts for part in walk(root)]
    if any(isinstance(part, MemoryRecords) for part in parts):
        yield "idempotency keys and jobs of store = 'memory' are known to one worker only; 'disk:PATH' and 'redis' are shared"
    if any(isinstance(part, Signatures) and not part.parts for part in parts):
        yield "a signature is refused a second time by the worker that saw it; store = 'disk:PATH' or 'redis' tells all"
    if any(isinstance(part, Pagination) and not part.sealed_for_all for part in parts):
        yield "a cursor is good at the worker that made it; give pagination a secret"
