"""The parent's side of a change that all workers make together: a channel to each of them, and the agreement over what they say."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import NamedTuple

from .agreement import Agreement
from .channel import Channel


class Seat(NamedTuple):
    """What a worker is started with: its end of a channel, and the version in force (None: as the process began)."""

    end: socket.socket
    number: int
    proposal: bytes | None


class Council:
    """Never blocks: its parent waits for ``reading()`` and ``writing()`` among other things, until ``due`` at most."""

    def __init__(self, agreement: Agreement | None = None) -> None:
        self._agreement = agreement or Agreement()
        self._channels: dict[int, Channel] = {}

    def seat(self, worker: int) -> Seat:
        """A place for a worker that is about to be started. Its end is to be closed here once it has been."""
        self._vacate(worker)
        ours, theirs = socket.socketpair()
        self._channels[worker] = Channel(ours)
        return Seat(theirs, self._agreement.number, self._agreement.proposal)

    @property
    def due(self) -> float | None:
        """When ``turn`` has something to do, whatever comes."""
        return self._agreement.due

    @property
    def changes(self) -> int:
        """How many changes have ended, well or not."""
        return self._agreement.changes

    def reading(self) -> list[Channel]:
        """Whose ``end`` may have something to read."""
        return [channel for channel in self._channels.values() if not channel.closed]

    def writing(self) -> list[Channel]:
        """Whose ``end`` has something to take."""
        return [channel for channel in self._channels.values() if channel.waiting]

    def want(self, now: float) -> None:
        """Somebody wants a change."""
        self._agreement.want(None, now)

    def left(self, worker: int, now: float) -> None:
        """A worker has died."""
        if worker in self._channels:
            self._hear(worker, now)  # what it said before counts
            self._vacate(worker)
            self._agreement.left(worker, now)

    def turn(self, readable: Collection[object], now: float) -> list[int]:
        """Hear those of ``readable``, decide, tell; the workers that must be replaced."""
        for worker, channel in list(self._channels.items()):
            if channel.end in readable:
                self._hear(worker, now)
            if channel.waiting:
                channel.flush()
        agreement = self._agreement
        agreement.tick(now)
        orders, agreement.orders = agreement.orders, []
        for worker, message in orders:
            if worker in self._channels:
                self._channels[worker].send(message)
        stale, agreement.stale = agreement.stale, []
        return stale

    def _hear(self, worker: int, now: float) -> None:
        for message in self._channels[worker].receive():
            self._agreement.receive(worker, message, now)

    def _vacate(self, worker: int) -> None:
        channel = self._channels.pop(worker, None)
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Give the channels back."""
        for worker in list(self._channels):
            self._vacate(worker)
