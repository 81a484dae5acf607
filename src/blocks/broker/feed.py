"""A feed is one subscription of a session: what it takes from the engine, within its credit, and how it is settled."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from .columns import run_of
from .errors import BadRequest, BrokerError
from .frames import DECLINE, EXTEND, NACK, Subscribe
from .message import Deliveries, SubscribeOptions

if TYPE_CHECKING:
    from .group import Subscription

FRAME_MESSAGES = 1_000
FRAME_BYTES = 256 * 1024


class Feeder(Protocol):
    """The session that a feed belongs to."""

    def has_ready(self, feed: Feed) -> None:
        """``feed`` has something to take."""
        ...

    def has_ended(self, feed: Feed, error: BrokerError) -> None:
        """The engine ended ``feed``."""
        ...


class Feed:
    """One subscription of a session: the engine's, and the credit that is left where it keeps no leases."""

    __slots__ = ("_session", "credit", "number", "queued", "room", "source")

    def __init__(self, session: Feeder, number: int, options: SubscribeOptions) -> None:
        self._session = session
        self.number = number
        self.queued = False  # among the session's ready ones
        self.source: Subscription | None = None
        counted = options.mode == "browse" or not options.ack
        self.credit: int | None = options.prefetch if counted else None
        self.room = options.prefetch_bytes

    def ready(self, subscription: Any) -> None:
        """The engine has something for this subscription."""
        self._session.has_ready(self)

    def ended(self, subscription: Any, error: BrokerError) -> None:
        """The engine ended this subscription."""
        self._session.has_ended(self, error)

    def take(self) -> list[Deliveries]:
        """The next messages, within the credit."""
        source = self.source
        if source is None:
            return []
        if self.credit is None:
            return source.take(FRAME_MESSAGES, FRAME_BYTES)
        if self.credit <= 0 or self.room <= 0:
            source.pause()
            return []
        runs = source.take(min(self.credit, FRAME_MESSAGES), min(self.room, FRAME_BYTES))
        self.credit -= sum(map(len, runs))
        self.room -= sum(run.size for run in runs)
        return runs


def settle(source: Subscription, verb: int, spans: list[tuple[str, range, int]], argument: Any) -> int:
    """Nack, reject or extend; gives how many were stale."""
    stale = 0
    for topic, span, token in spans:
        if verb == NACK:
            stale += source.nack(topic, span, token, argument if isinstance(argument, int | float) else None)
        elif verb == DECLINE:
            stale += source.decline(topic, span, token)
        elif verb == EXTEND:
            wanted = float(argument) if isinstance(argument, int | float) else 0.0
            stale += source.extend(topic, span, token, min(max(wanted, 0.0), _SECONDS["lease"]))
        else:
            stale += source.reject(topic, span, token, str(argument or ""))
    return stale


def frames_of(runs: list[Deliveries]) -> list[list[list[Any]]]:
    """The runs of each frame: as many as fit into one."""
    frames: list[list[list[Any]]] = []
    room = 0
    for run in runs:
        if room < run.size or not frames:
            frames.append([])
            room = FRAME_BYTES
        room -= run.size
        frames[-1].append(run_of(run))
    return frames


_NUMBERS = {"prefetch": (1, 10_000_000), "prefetch_bytes": (1, 2**40), "max_deliveries": (1, 2**31)}
_SECONDS = {"lease": 86_400.0, "backoff": 86_400.0, "backoff_cap": 604_800.0}
_NAMES = 65_536


def options_of(frame: Subscribe) -> SubscribeOptions:
    """What a ``Subscribe`` frame asks for, every option of its type and range. Raises ``BadRequest``."""
    given = frame.options
    unknown = set(given) - {field.name for field in fields(SubscribeOptions)}
    if unknown or "pattern" in given:
        raise BadRequest(f"a subscription has no option {min(unknown or {'pattern'})}")
    for name, value in given.items():
        if not _is_right(name, value):
            raise BadRequest(f"{name} of a subscription cannot be {value!r:.80}")
    return SubscribeOptions(frame.pattern, **given)


def _is_right(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        least, most = _NUMBERS[name]
        return type(value) is int and least <= value <= most
    if name in _SECONDS:
        return type(value) in (int, float) and 0 <= value <= _SECONDS[name]
    if name in ("ack", "exclusive", "single_active"):
        return type(value) is bool
    if name in ("group", "dead_letter"):
        return value is None or (type(value) is str and 0 < len(value) <= 255)
    if name == "mode":
        return value in ("consume", "browse")
    if name == "positions":
        return value is None or (
            type(value) is dict
            and len(value) <= _NAMES
            and all(type(topic) is str and type(place) is int and 0 <= place < 2**63 for topic, place in value.items())
        )
    return _is_start(value)


def _is_start(value: Any) -> bool:
    if type(value) is str:
        return value in ("earliest", "latest", "last")
    return (type(value) is int and 0 <= value < 2**63) or (type(value) is float and 0 <= value < 1e12)
