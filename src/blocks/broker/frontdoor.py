"""The broker over HTTP, for whoever has no client: publish with POST, pull and ack, or follow a topic by SSE.

    POST /topics/TOPIC                     a message, or CloudEvents (binary, structured, batched)
    POST /groups/GROUP/pull?topic=PATTERN  up to ``max`` messages, waiting ``wait`` seconds for the first
    POST /groups/GROUP/ack|nack|reject|extend   what became of them
    GET  /topics/PATTERN/events            Server-Sent Events, resumed by Last-Event-ID

A browser's page of another origin is refused, so that no web site can write to a broker on its visitor's machine.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from blocks.core.errors import BlocksError, ConfigError
from blocks.core.quantities import seconds

from . import cloudevents
from .address import Address
from .errors import BadRequest, BrokerError, Denied
from .message import Message
from .pull import Pulls
from .row import row_of
from .security import Anyone, Guard, Identity, check_exposure, is_loopback

if TYPE_CHECKING:
    from aiohttp import web

    from .broker import Broker

    Handler = Callable[[web.Request, Identity], Awaitable[web.StreamResponse]]

STREAMS = 1_000  # SSE followers at a time
KEEP_ALIVE = 15.0  # seconds between comments on a silent stream: the WHATWG page advises 15
PULL_MAX, PULL_WAIT = 1_000, 60.0


class FrontDoor:
    """Listens for HTTP on ``listen`` for a broker in this process, while its context is open."""

    def __init__(
        self,
        broker: Broker,
        *,
        listen: str,
        guard: Guard | None = None,
        origins: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._broker = broker
        self._address = Address.parse(listen)
        check_exposure(self._address.host, guard)
        self._guard = guard
        self._origins = origins
        self._runner: web.AppRunner | None = None
        self._pulls = Pulls(broker)
        self._streams: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        return f"{'http' if self._tls is None else 'https'}://{self._address}"

    async def __aenter__(self) -> FrontDoor:
        from aiohttp import web

        app = web.Application(client_max_size=self._broker.limits.message_bytes + 1024 * 1024)
        app.router.add_post("/topics/{topic}", self._guarded(self._publish))
        app.router.add_get("/topics/{topic}/events", self._guarded(self._events))
        app.router.add_post("/groups/{group}/pull", self._guarded(self._pull))
        for verb in ("ack", "nack", "reject", "extend"):
            app.router.add_post("/groups/{group}/" + verb, self._guarded(self._settler(verb)))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address.host, self._address.port, ssl_context=self._tls)
        await site.start()
        self._address = self._address.with_port(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        self._pulls.close()

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """``handler`` for those who may come in; what it raises becomes an answer."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._check_browser(request)
                try:
                    identity = await self._identify(request)
                except Denied as error:
                    return _refusal(401, error.code, str(error))
                return await handler(request, identity)
            except Denied as error:
                return _refusal(403, error.code, str(error))
            except BrokerError as error:
                return _refusal(error.status, error.code, str(error))
            except ConfigError as error:
                return _refusal(400, "bad-request", str(error))

        return guarded

    def _check_browser(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            raise Denied(f"pages of {origin} may not use this broker")
        host = request.host.rpartition(":")[0] or request.host
        if self._guard is None and not is_loopback(host.strip("[]")):
            raise Denied("this broker is for this machine; the Host header names another")

    async def _identify(self, request: web.Request) -> Identity:
        guard = self._guard
        if guard is None:
            return Anyone()
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            options = {"token": shown.strip()}
        elif scheme.lower() == "basic":
            options = _basic(shown)
        else:
            raise Denied("this broker wants Authorization: Bearer TOKEN, or Basic")
        found = guard.quick(options)
        return (
            found if found is not None else await asyncio.get_running_loop().run_in_executor(None, guard.login, options)
        )

    async def _publish(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        topic = request.match_info["topic"]
        identity.require("publish", topic)
        body = await request.read()
        most = identity.bounds.message_bytes
        if most is not None and len(body) > most:
            return _refusal(413, "too-large", f"{identity.name} may send messages of at most {most} bytes")
        kind = request.content_type
        if kind == cloudevents.BATCHED:
            return await self._publish_batch(topic, cloudevents.of_batch(body))
        if kind == cloudevents.STRUCTURED:
            event = cloudevents.of_structured(body)
        else:
            event = cloudevents.of_binary({name.lower(): value for name, value in request.headers.items()}, body)
        own = {
            name[15:].lower(): value
            for name, value in request.headers.items()
            if name.lower().startswith("message-header-")
        }
        key = request.headers.get("Message-Key")
        receipt = await self._broker.publish(
            topic,
            event.payload,
            headers={**event.headers, **own},
            key=key.encode() if key is not None else None,
            id=request.headers.get("Message-Id") or request.headers.get("Idempotency-Key") or event.id,
            ttl=_duration(request, "Message-Ttl"),
            delay=_duration(request, "Message-Delay"),
        )
        return _json(receipt._asdict(), 201)

    async def _publish_batch(self, topic: str, events: list[cloudevents.Event]) -> web.StreamResponse:
        receipts = await self._broker.publish_many(
            topic,
            [event.payload for event in events],
            headers=[event.headers for event in events],
            ids=[event.id for event in events],
        )
        return _json([receipt._asdict() for receipt in receipts], 201)

    async def _pull(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        group, pattern = request.match_info["group"], request.query.get("topic", "")
        identity.require("subscribe", pattern)
        identity.require_group(group)
        most = _number(request, "max", 100, PULL_MAX)
        wait = _number(request, "wait", 0, PULL_WAIT)
        lease = _number(request, "lease", 30, 43_200)  # at most 12 h, as Amazon SQS has it
        start = request.query.get("start", "earliest")
        pull = self._pulls.find(identity.name, group, pattern, start, lease)
        return _json({"messages": await pull.take(int(most), wait)})

    def _settler(self, verb: str) -> Handler:
        async def settle(request: web.Request, identity: Identity) -> web.StreamResponse:
            body = cloudevents.read_json(await request.read())
            if not isinstance(body, dict) or not isinstance(body.get("leases"), list):
                raise BadRequest('the body is {"leases": ["…"]}, as they came with the messages')
            stale = await self._pulls.settle(identity.name, request.match_info["group"], verb, body)
            return _json({"settled": len(body["leases"]) - stale, "stale": stale})

        return settle

    async def _events(self, request: web.Request, identity: Identity) -> web.StreamResponse:
        pattern = request.match_info["topic"]
        identity.require("subscribe", pattern)
        if len(self._streams) >= STREAMS:
            return _refusal(503, "overloaded", f"there are {STREAMS} followers already")
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            return await self._follow(request, pattern)
        finally:
            self._streams.discard(task)

    async def _follow(self, request: web.Request, pattern: str) -> web.StreamResponse:
        from aiohttp import web

        start = _resume(request.headers.get("Last-Event-ID"), request.query.get("start", "latest"), pattern)
        async with self._broker.subscribe(pattern, start=start, mode="browse", prefetch=100) as messages:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            await response.write(b": following\n\n")
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE):
                        message = await anext(messages)
                except TimeoutError:
                    await response.write(b":\n\n")
                except (StopAsyncIteration, BlocksError):
                    return response
                else:
                    row = json.dumps(row_of(message))
                    await response.write(f"id: {_event_id(message, pattern)}\ndata: {row}\n\n".encode())


def _event_id(message: Message, pattern: str) -> str:
    """Of one topic the offset; of a pattern the time, from which some messages may come twice."""
    return str(message.offset) if message.topic == pattern else f"@{message.timestamp!r}"


def _resume(last: str | None, start: str, pattern: str) -> str | int | float:
    if last is not None and last.isascii() and last.isdigit():
        return int(last) + 1
    text = last if last is not None and last.startswith("@") else start
    if text.startswith("@"):
        try:
            return float(text[1:])
        except ValueError:
            raise BadRequest("a start in time is @ and seconds since 1970") from None
    return int(text) if text.isascii() and text.isdigit() else text


def _number(request: web.Request, name: str, default: float, most: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    value = seconds(text)
    if value > most:
        raise BadRequest(f"{name} is at most {most:g}")
    return value


def _duration(request: web.Request, name: str) -> float | None:
    text = request.headers.get(name)
    return seconds(text) if text is not None else None


def _basic(shown: str) -> dict[str, str]:
    try:
        user, _, password = base64.b64decode(shown, validate=True).decode("utf-8").partition(":")
    except ValueError:
        raise Denied("the Basic credentials are not base64") from None
    return {"user": user, "password": password}


def _json(value: Any, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.Response(text=json.dumps(value), status=status, content_type="application/json")


def _refusal(status: int, code: str, message: str) -> web.Response:
    response = _json({"error": code, "message": message}, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
