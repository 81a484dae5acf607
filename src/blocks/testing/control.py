"""Arms faults and shows their hits over HTTP, for a ``blocks fault`` that is running."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.core.errors import ConfigError
from blocks.http.message import Request, Response

from .door import Door
from .faultline import arm
from .faults import Faults
from .link import BOTH, Direction, Link
from .rules import Armed

MOST = 64 * 1024  # bytes of rules in one request
_OF_ALL = ("/arm", "/clear", "/refuse", "/crash", "/recover")
_OF_LINKS = ("/stall", "/flow", "/slow")


class Control:
    """``POST /arm``: a rule a line, all or none, in one step. ``POST /clear``, ``/refuse``, ``/crash``, ``/recover``. ``GET /faults``.

    Of a TCP proxy also ``POST /stall`` (the body: to-client, to-server, or nothing for both), ``/flow``, and ``/slow`` (the body:
    ``to-client 200ms``, a line for each direction).
    """

    def __init__(self, door: Door, armed: Iterable[tuple[str, Armed]] = ()) -> None:
        self._door = door
        self._rules = list(armed)

    async def __call__(self, request: Request) -> Response:
        """The answer to one command; a rule that cannot be read is a 400 that says why, and arms nothing."""
        path = request.path
        if request.method == "GET" and path == "/faults":
            return self._shown()
        if request.method != "POST":
            return Response.text(f"GET /faults, or POST {', '.join(self._commands())}\n", 405, {"allow": "GET, POST"})
        if path == "/arm":
            return self._arm((await request.read(MOST)).decode("utf-8", "replace"))
        if path == "/clear":
            self._door.fault.clear()
            self._door.fault.connections.clear()
        elif path == "/refuse":
            self._door.refuse()
        elif path == "/crash":
            self._door.crash()
        elif path == "/recover":
            await self._door.recover()
        elif path in self._commands():
            return self._of_link((await request.read(MOST)).decode("utf-8", "replace"), path)
        else:
            return Response.text(f"there is no {path}; there are {', '.join(self._commands())}\n", 404)
        return self._shown()

    def _commands(self) -> tuple[str, ...]:
        return (*_OF_ALL, *_OF_LINKS) if isinstance(self._door, Link) else _OF_ALL

    def _of_link(self, text: str, path: str) -> Response:
        link = self._door
        assert isinstance(link, Link)
        try:
            if path == "/stall":
                link.stall(*(_direction(word) for word in text.split()))
            elif path == "/flow":
                link.flow()
            else:
                words = [line.split() for line in text.splitlines() if line.strip()]
                if not all(len(pair) == 2 for pair in words):
                    raise ConfigError("a latency is written like: to-client 200ms")
                found = {_direction(direction).replace("-", "_"): span for direction, span in words}
                link.slow(**found)
        except ConfigError as error:
            return Response.text(f"{error}\n", 400)
        return self._shown()

    def _arm(self, text: str) -> Response:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        try:
            for line in lines:
                arm(Faults(requests=self._door.fault.connections is not self._door.fault), line)
        except ConfigError as error:
            return Response.text(f"{error}\n", 400)
        self._rules = [(line, rule) for line, rule in self._rules if not rule.spent or rule.hits][-1000:]
        self._rules += [(line, arm(self._door.fault, line)) for line in lines]
        return self._shown()

    def _shown(self) -> Response:
        rules = [{"rule": line, "hits": rule.hits[-1000:], "spent": rule.spent} for line, rule in self._rules]
        return Response.json({"seen": self._door.fault.seen, "connections": self._door.connections, "armed": rules})


def _direction(word: str) -> Direction:
    for direction in BOTH:
        if word == direction:
            return direction
    raise ConfigError(f"{word!r} is no direction; there are {' and '.join(BOTH)}")
