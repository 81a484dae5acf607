"""What the broker adds to the admin API, and that API for a broker by itself: topics, groups, lag, counters.

Who may ask is the admin API's affair (``blocks.http.guard``): this machine, or whoever shows the token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from blocks.http.options import Serving

from .errors import BrokerError
from .readings import readings

if TYPE_CHECKING:
    from aiohttp import web

    from blocks.http.admin import Admin, Subject

    from .broker import Broker

_MOST = 1000  # rows of one answer, unless asked for fewer


class BackDoor:
    """The admin API of ``broker``, listening on ``listen`` while its context is open. Raises ``ConfigError``, ``CannotBind``.

    Off loopback it needs ``token_file``. ``subject`` says more about the process than that there is a broker in it.
    """

    def __init__(
        self, broker: Broker, *, listen: str, token_file: str | None = None, subject: Subject | None = None
    ) -> None:
        from blocks.http.admin import Admin, Subject

        self._address = listen
        serving = Serving(admin=listen, admin_token_file=token_file)
        subject = subject or Subject("broker", lambda: (broker,))
        self._admin: Admin = Admin(subject, serving, lambda app, root: add_routes(app, broker))

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        return self._address if self._address.startswith("unix:") else f"http://{self._address}"

    async def __aenter__(self) -> BackDoor:
        self._address = await self._admin.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._admin.__aexit__(kind, error, trace)


def add_routes(app: web.Application, broker: Broker) -> None:
    """``/v1/broker`` and what is below it; ``/topics``, ``/groups``, ``/lag`` and ``/stats`` are the same."""
    from blocks.http.admin import METRICS

    doors = _Doors(broker)
    for path, answer in (
        ("topics", doors.topics),
        ("groups", doors.groups),
        ("lag", doors.lag),
        ("stats", doors.stats),
    ):
        app.router.add_get(f"/v1/broker/{path}", _answering(answer))
        app.router.add_get(f"/{path}", _answering(answer))
    app.router.add_get("/v1/broker", _answering(doors.show))
    app[METRICS].collect(lambda: readings(broker))


_Answer = Callable[["web.Request"], "web.Response"]


def _answering(answer: _Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route whose refusals are JSON, too."""

    async def handle(request: web.Request) -> web.Response:
        from aiohttp import web

        try:
            return answer(request)
        except BrokerError as error:
            return web.json_response({"error": error.code, "message": str(error)}, status=error.status)

    return handle


class _Doors:
    """The routes. Lists come in pages (``?offset=&limit=``), and only the rows of a page are worked out."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def show(self, request: web.Request) -> web.Response:
        from aiohttp import web

        broker = self._broker
        body: dict[str, Any] = {
            "name": getattr(broker, "name", "broker"),
            "data": str(broker.path),
            "health": broker.status.name,
            "damage": list(broker.engine.damage)[:_MOST],
            "connections": 0 if broker.server is None else broker.server.connections,
        }
        return web.json_response({**body, **broker.engine.stats()})

    def topics(self, request: web.Request) -> web.Response:
        from blocks.http.admin import page

        engine = self._broker.engine
        found = engine.topics_named(request.query.get("pattern", ">"))
        return page(request, found, _MOST, describe=engine.describe_topic)

    def groups(self, request: web.Request) -> web.Response:
        from blocks.http.admin import page

        engine = self._broker.engine
        return page(request, list(engine.group_named.values()), _MOST, describe=engine.describe_group)

    def lag(self, request: web.Request) -> web.Response:
        from blocks.http.admin import page

        return page(request, self._broker.engine.lag(request.query.get("group")), _MOST)

    def stats(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response(self._broker.engine.stats())
