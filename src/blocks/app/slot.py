"""A slot is where a handler stands in a stack: others hold the slot, so that what stands in it can be exchanged while they run."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from blocks.core.status import Status
from blocks.http.handler import Handler, bind, status_of
from blocks.http.message import Request, Response


class Slot:
    """Passes requests to ``handler``, whichever that is now; each request stays with the one that it began with.

    It names no ``parts``: what stands in it has a life of its own, which is the stack's affair and not that of those who ask it.
    """

    __slots__ = ("_call", "handler", "name")

    direct = True

    def __init__(self, name: str, handler: Handler | None = None) -> None:
        self.name = name
        self.handler: Handler | None = None
        if handler is not None:
            self.put(handler)

    def put(self, handler: Handler) -> None:
        """Let ``handler`` answer from the next request on."""
        self.handler = handler
        self._call = bind(handler)

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """The answer of whoever stands here now."""
        return self._call(request)

    @property
    def status(self) -> Status:
        """As well as what stands here."""
        return Status.CLOSED if self.handler is None else status_of(self.handler)

    @property
    def behind(self) -> tuple[Handler, ...]:
        """What stands here, for the topology."""
        return () if self.handler is None else (self.handler,)

    @property
    def address(self) -> Any:
        """The address of an upstream that stands here, for probes that only connect; None for all else."""
        return getattr(self.handler, "address", None)

    def __repr__(self) -> str:
        return f"<Slot {self.name}>"
