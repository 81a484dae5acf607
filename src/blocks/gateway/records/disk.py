"""Records in one SQLite file, which outlive the process and are shared by the processes of one machine.

A record that was written is on the disk before the call returns (WAL with synchronous=FULL); all calls run in one thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from blocks.core.clock import SYSTEM, Clock

from .contract import StoreDown

T = TypeVar("T")
MAX_ROWS = 1_000_000
BUSY = 5.0  # seconds to wait for another process's write; sqlite3's own default
_SWEEP = 1000  # writes between two sweeps of expired rows
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB NOT NULL, until REAL NOT NULL) WITHOUT ROWID"
)


class DiskRecords:
    """Keeps at most ``rows`` records in ``path``; an async context manager, which closes the file and ends the thread."""

    def __init__(self, path: Path | str, *, rows: int = MAX_ROWS, clock: Clock = SYSTEM) -> None:
        self.path = Path(path)
        self._rows = rows
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None
        self._writes = 0
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        await self._do(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._users == 0 and self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown()

    async def add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        """See ``Records.add``."""
        return await self._do(lambda: self._add(key, value, ttl))

    async def get(self, key: bytes) -> bytes | None:
        """See ``Records.get``."""
        return await self._do(lambda: self._find(self._open(), key))

    async def swap(self, key: bytes, old: bytes, new: bytes, ttl: float) -> bool:
        """See ``Records.swap``."""
        now = self._clock.wall()
        sql = "UPDATE records SET value = ?, until = ? WHERE key = ? AND value = ? AND until > ?"
        return await self._do(lambda: self._write(sql, (new, now + ttl, key, old, now)))

    async def drop(self, key: bytes, old: bytes) -> bool:
        """See ``Records.drop``."""
        now = self._clock.wall()
        return await self._do(
            lambda: self._write("DELETE FROM records WHERE key = ? AND value = ? AND until > ?", (key, old, now))
        )

    async def _do(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="blocks-records")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreDown(f"{self.path}: {error}") from error

    # -- in the thread

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.execute(_SCHEMA)
                database.execute("CREATE INDEX IF NOT EXISTS by_until ON records (until)")
            except sqlite3.Error:
                database.close()
                raise
            self._database = database
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _find(self, database: sqlite3.Connection, key: bytes) -> bytes | None:
        row = database.execute(
            "SELECT value FROM records WHERE key = ? AND until > ?", (key, self._clock.wall())
        ).fetchone()
        return None if row is None else bytes(row[0])

    def _add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        database = self._open()
        now = self._clock.wall()
        database.execute("BEGIN IMMEDIATE")
        try:
            found = self._find(database, key)
            if found is None:
                self._sweep(database, now)
                database.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (key, value, now + ttl))
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        return found

    def _sweep(self, database: sqlite3.Connection, now: float) -> None:
        if self._writes % _SWEEP == 0:
            database.execute("DELETE FROM records WHERE until <= ?", (now,))
            (count,) = database.execute("SELECT count(*) FROM records").fetchone()
            if count + _SWEEP > self._rows + _SWEEP:
                raise sqlite3.OperationalError(f"the store of records is full ({count} of {self._rows})")
        self._writes += 1

    def _write(self, sql: str, values: tuple[object, ...]) -> bool:
        return self._open().execute(sql, values).rowcount == 1
