"""Arms faults and shows their hits over HTTP, for a ``blocks fault`` that is running."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.core.errors import ConfigError
from blocks.http.message import Request, Response

from .door import Door
from .faultline import arm
from .faults import Faults
from .rules import Armed

MOST = 64 * 1024  # bytes of rules in one request


class Control:
    """``POST /arm``: a rule a line, all or none, in one step. ``POST /clear``, ``/refuse``, ``/crash``, ``/recover``. ``GET /faults``."""

    def __init__(self, door: Door, armed: Iterable[tuple[str, Armed]] = ()) -> None:
        self._door = door
        self._rules = list(armed)

    async def __call__(self, request: Request) -> Response:
        """The answer to one command; a rule that cannot be read is a 400 that says why, and arms nothing."""
        path = request.path
        if request.method == "GET" and path == "/faults":
            return self._shown()
        if request.method != "POST":
            return Response.text(
                "GET /faults, or POST /arm, /clear, /refuse, /crash, /recover\n", 405, {"allow": "GET, POST"}
            )
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
        else:
            return Response.text(f"there is no {path}\n", 404)
        return self._shown()

    def _arm(self, text: str) -> Response:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        try:
            for line in lines:
                arm(Faults(), line)
        except ConfigError as error:
            return Response.text(f"{error}\n", 400)
        self._rules = [(line, rule) for line, rule in self._rules if not rule.spent or rule.hits][-1000:]
        self._rules += [(line, arm(self._door.fault, line)) for line in lines]
        return self._shown()

    def _shown(self) -> Response:
        rules = [{"rule": line, "hits": rule.hits[-1000:], "spent": rule.spent} for line, rule in self._rules]
        return Response.json({"seen": self._door.fault.seen, "connections": self._door.connections, "armed": rules})
