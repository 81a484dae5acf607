"""The context is what the gateway knows of one request: its route, who asks, from where, and what steps note for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blocks.http.message import Request, Response

from .consumer import Consumer

if TYPE_CHECKING:
    from .route import Route

NO_PARAMS: Mapping[str, Any] = MappingProxyType({})
STATE_KEY = "gateway"  # where the context stands in request.state

AtEnd = Callable[[Response | None], None]


class Context:
    """One for each request. ``path`` is the normalised path, ``client`` the believed address, ``now`` the arrival (monotonic)."""

    __slots__ = ("_notes", "charged", "client", "consumer", "ends", "limited", "now", "params", "path", "route")

    def __init__(self, route: Route, params: Mapping[str, Any], path: str, client: str, now: float) -> None:
        self.route = route
        self.params = params
        self.path = path
        self.client = client
        self.now = now
        self.consumer: Consumer | None = None
        self.ends: list[AtEnd] | None = None
        self.charged: list[Any] | None = None  # the limits' own note of what they took, for their fields
        self.limited: str | None = None  # the key whose limit refused the request
        self._notes: dict[str, Any] | None = None

    @property
    def notes(self) -> dict[str, Any]:
        """What steps tell each other and the log; made on first use."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def noted(self) -> Mapping[str, Any]:
        """The notes, without making any."""
        return self._notes if self._notes is not None else NO_PARAMS

    def logged(self) -> dict[str, str]:
        """What the access log's line says of the request beyond what the server knows."""
        told = {"client": self.client, "route": self.route.name}
        if self.consumer is not None:
            told["consumer"] = self.consumer.name
        return told

    def at_end(self, call: AtEnd) -> None:
        """Call back once when the request is over: with the response when its body has ended, with None when it failed."""
        if self.ends is None:
            self.ends = []
        self.ends.append(call)

    def end(self, response: Response | None) -> None:
        """The request is over: run what was asked for, the last first, each once."""
        ends, self.ends = self.ends, None
        for call in reversed(ends or ()):
            call(response)


def context_of(request: Request) -> Context:
    """The gateway's context of a request, for handlers behind it. Raises ``LookupError`` when no gateway saw the request."""
    context = request.state.get(STATE_KEY)
    if not isinstance(context, Context):
        raise LookupError("this request did not come through a Gateway")
    return context
