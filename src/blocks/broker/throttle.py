"""A client that sends more than its rate is not refused but read later: its own connection slows down."""

from __future__ import annotations

from blocks.core.quantities import Rate


class Throttle:
    """Two token buckets, of messages and of bytes; each holds one second of its rate (nginx's burst, in time).

    A client may go into debt by one frame, and waits it off.
    """

    __slots__ = ("_at", "_bytes", "_bytes_rate", "_messages", "_messages_rate")

    def __init__(self, messages: Rate | None, size: Rate | None) -> None:
        self._messages_rate = messages.per_second if messages is not None else None
        self._bytes_rate = size.per_second if size is not None else None
        self._messages = self._messages_rate or 0.0
        self._bytes = self._bytes_rate or 0.0
        self._at: float | None = None

    def spend(self, messages: int, size: int, now: float) -> float:
        """Seconds to wait before the next frame is read, now that one of ``messages`` and ``size`` bytes was."""
        passed = max(0.0, now - self._at) if self._at is not None else 0.0
        self._at = now
        wait = 0.0
        if self._messages_rate is not None:
            self._messages = min(self._messages_rate, self._messages + passed * self._messages_rate) - messages
            wait = -self._messages / self._messages_rate
        if self._bytes_rate is not None:
            self._bytes = min(self._bytes_rate, self._bytes + passed * self._bytes_rate) - size
            wait = max(wait, -self._bytes / self._bytes_rate)
        return max(0.0, wait)
