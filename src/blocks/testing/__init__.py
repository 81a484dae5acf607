"""For the tests of users: the kit behind the fixture ``blocks``, virtual time, scripted origins, exact faults, load and objectives."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bridge import Bridge as Bridge
    from .clock import LoopClock as LoopClock
    from .disk import Disk as Disk
    from .faults import Faults as Faults
    from .kit import Kit as Kit
    from .limit import find_limit as find_limit
    from .link import Link as Link
    from .origin import Origin as Origin
    from .result import Result as Result
    from .rules import Armed as Armed
    from .rules import Effect as Effect
    from .shapes import Shape as Shape
    from .shapes import constant as constant
    from .shapes import day as day
    from .shapes import ramp as ramp
    from .shapes import spike as spike
    from .tcp_origin import TcpOrigin as TcpOrigin
    from .timeline import Timeline as Timeline
    from .traffic import load as load
    from .transcript import Mismatch as Mismatch
    from .virtual import VirtualLoop as VirtualLoop
    from .waiting import until as until

_HOMES = {
    "Armed": "rules",
    "Bridge": "bridge",
    "Disk": "disk",
    "Effect": "rules",
    "Faults": "faults",
    "Kit": "kit",
    "Link": "link",
    "LoopClock": "clock",
    "Mismatch": "transcript",
    "Origin": "origin",
    "Result": "result",
    "Shape": "shapes",
    "TcpOrigin": "tcp_origin",
    "Timeline": "timeline",
    "VirtualLoop": "virtual",
    "constant": "shapes",
    "day": "shapes",
    "find_limit": "limit",
    "load": "traffic",
    "ramp": "shapes",
    "spike": "shapes",
    "until": "waiting",
}

__all__ = list(_HOMES)  # the names are those of the table above


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'blocks.testing' has no attribute {name!r}")
    value = getattr(import_module(f"blocks.testing.{home}"), name)
    globals()[name] = value
    return value
