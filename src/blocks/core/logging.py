"""Events are for people and dashboards: rare, named, with fields; each is kept in a ring, given to subscribers, and printed.

``events().warning("ejected", endpoint="a", reason="5 failures")``. Printing goes through structlog (JSON lines or a console), which
is imported with the first event that is printed and not before: it takes 175 ms. What comes per request is no event: see ``lines``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from typing import IO, Any

from .clock import SYSTEM, Clock
from .errors import ConfigError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
RING = 1000  # events kept
_LONG = 2000  # characters of one value
_FIELDS = 32  # fields of one event
_BURST = 50  # events of one name that are printed in a second; the rest is counted and told with the next
_NAMES = 1000  # names that are watched for bursts

Event = dict[str, Any]


class Events:
    """A logger of events. ``info("name", field=value)``; ``recent()`` gives the last ones; ``subscribe`` the coming ones.

    Levels below ``level`` are dropped before anything is made of them. Values are kept short (2,000 characters), fields few
    (32), and no name is printed more than 50 times a second (the ring and subscribers get all of them).
    """

    def __init__(
        self,
        *,
        level: str = "info",
        format: str = "auto",
        output: IO[str] | None = None,
        ring: int = RING,
        clock: Clock = SYSTEM,
    ) -> None:
        self._ring: deque[Event] = deque(maxlen=ring)
        self._subscribers: list[Callable[[Event], None]] = []
        self._clock = clock
        self._bursts: dict[str, list[float]] = {}
        self.configure(level=level, format=format, output=output)

    def configure(self, *, level: str = "info", format: str = "auto", output: IO[str] | None = None) -> None:
        """``format`` is json, console, off, or auto (console on a terminal, else json); ``output`` is standard error if None."""
        if level not in LEVELS:
            raise ConfigError(f"{level!r} is no level; it is one of {', '.join(LEVELS)}")
        if format not in ("auto", "json", "console", "off"):
            raise ConfigError(f"{format!r} is no format; it is one of auto, json, console, off")
        self._threshold = LEVELS[level]
        self._format = format
        self._output = output
        self._print: Callable[[Event], None] | None = None

    def debug(self, event: str, **fields: Any) -> None:
        """What only a developer asks for."""
        self._emit("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A change of state that is no trouble."""
        self._emit("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something that an operator should look at in working hours."""
        self._emit("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something that fails now. ``error=exception`` is told with its type and message."""
        self._emit("error", event, fields)

    def recent(self, number: int | None = None) -> list[Event]:
        """The last events, the oldest first."""
        events = list(self._ring)
        return events if number is None else events[max(0, len(events) - number) :]

    def subscribe(self, receive: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``receive(event)`` for every event to come, in the thread it happens in; the result ends it. It should be quick."""
        self._subscribers.append(receive)

        def end() -> None:
            if receive in self._subscribers:
                self._subscribers.remove(receive)

        return end

    async def follow(self, bound: int = 256) -> AsyncIterator[Event]:
        """Every event to come, for one reader in this loop; one that is more than ``bound`` behind misses the oldest."""
        waiting: deque[Event] = deque(maxlen=bound)
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()

        def receive(event: Event) -> None:
            waiting.append(event)
            loop.call_soon_threadsafe(arrived.set)

        end = self.subscribe(receive)
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                await arrived.wait()
                arrived.clear()
        finally:
            end()

    @contextmanager
    def captured(self) -> Any:
        """A list that gets every event while the context is open: for tests."""
        seen: list[Event] = []
        end = self.subscribe(seen.append)
        try:
            yield seen
        finally:
            end()

    def _emit(self, level: str, name: str, fields: Mapping[str, Any]) -> None:
        if LEVELS[level] < self._threshold:
            return
        event: Event = {"at": self._clock.wall(), "level": level, "event": name}
        for key, value in list(fields.items())[:_FIELDS]:
            event[key if key not in event else f"{key}_"] = _kept(value)
        self._ring.append(event)
        for receive in list(self._subscribers):
            try:
                receive(event)
            except Exception:  # a subscriber's fault must not reach the one who tells
                self._subscribers.remove(receive)
        if self._format != "off" and (suppressed := self._admitted(name)) is not None:
            if self._print is None:
                self._print = _printer(self._format, self._output)
            try:
                self._print({**event, "suppressed": suppressed} if suppressed else event)
            except (OSError, ValueError):  # the terminal is gone; the ring still has it
                pass

    def _admitted(self, name: str) -> int | None:
        """None when ``name`` was printed too often in this second, else how many of it were left out before."""
        now = self._clock.monotonic()
        burst = self._bursts.get(name)
        if burst is None:
            if len(self._bursts) >= _NAMES:
                self._bursts.clear()
            burst = self._bursts[name] = [now, 0, 0]
        if now - burst[0] >= 1.0:
            burst[0], burst[1] = now, 0
        burst[1] += 1
        if burst[1] > _BURST:
            burst[2] += 1
            return None
        left_out, burst[2] = int(burst[2]), 0
        return left_out


def _kept(value: Any) -> Any:
    """A value that can be kept and encoded: numbers as they are, everything else as text of bounded length."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_kept(item) for item in value[:_FIELDS]]
    if isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}"
    text = (
        value
        if isinstance(value, str)
        else value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else str(value)
    )
    return text if len(text) <= _LONG else text[:_LONG] + "…"


def _printer(format: str, output: IO[str] | None) -> Callable[[Event], None]:
    """Prints events through structlog's processors and renderers."""
    import structlog

    stream = output if output is not None else sys.stderr
    console = format == "console" or (format == "auto" and stream.isatty())
    dev, processors = structlog.dev, structlog.processors
    render: Any = dev.ConsoleRenderer(colors=stream.isatty()) if console else processors.JSONRenderer(sort_keys=False)

    def show(event: Event) -> None:
        told = {"timestamp": _iso(event["at"]), **event}
        del told["at"]
        if console:
            told = {key: _printable(value) for key, value in told.items()}
        stream.write(str(render(None, event["level"], told)) + "\n")
        stream.flush()

    return show


def _printable(value: Any) -> Any:
    """Control characters, which could move a terminal's cursor, as escapes."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


_events: Events | None = None


def events() -> Events:
    """The events of this process, made on first use; ``events().configure(...)`` says how they are printed."""
    global _events
    if _events is None:
        _events = Events()
    return _events
