"""Small records that several requests, and several gateways, must agree on: an idempotency key's answer, a job's state.

``Records`` has four operations, each atomic; three stores keep the same promises (one test suite holds them to it).
"""

from __future__ import annotations

from .contract import Records, StoreDown
from .disk import DiskRecords
from .make import make_records
from .memory import MemoryRecords
from .shared import SharedRecords

__all__ = ["DiskRecords", "MemoryRecords", "Records", "SharedRecords", "StoreDown", "make_records"]
