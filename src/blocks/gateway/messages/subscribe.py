"""A subscription is streamed to whoever may see it, as Server-Sent Events or over a WebSocket, and taken up where it broke off."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration
from blocks.core.errors import BlocksError, ConfigError
from blocks.core.messaging import Delivery, Subscriber
from blocks.core.quantities import seconds
from blocks.gateway.context import Context, context_of
from blocks.gateway.cors import Cors
from blocks.gateway.cors import Settings as CorsSettings
from blocks.gateway.ownership import owner_of
from blocks.gateway.problem import problem
from blocks.gateway.transform.template import Template, View
from blocks.gateway.validate.parameters import pairs
from blocks.http.body import Stream
from blocks.http.message import Request, Response

from .connection import Connection
from .events import KEEP_ALIVE, as_event, event_id, resumed, whole
from .feed import Feed
from .frames import BINARY, TEXT, accept, frame
from .publish import _word, refused
from .websocket import PING_FRAME, Socket

if TYPE_CHECKING:
    from blocks.gateway.site import Site

SHORTHAND = (str,)
QUIET = 15.0  # seconds between signs of life; the HTML Standard's advice for event streams (§9.2.7)
LIFETIME = 3600.0  # seconds after which a stream ends and the client, coming again, shows who it is
STREAMS, STREAMS_EACH = 1000, 10
PREFETCH = 100  # messages held for one stream


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``source``: a subscriber (its name; an object in code); ``topic``: a pattern with templates; ``start``: ``latest``, ``earliest`` or
    an offset; ``group``: a template; its members share the messages and the broker keeps their place. ``envelope``: messages with all that
    is known of them, as JSON. ``websocket``: upgrades are taken, from pages of our own host or of ``origins``.
    """

    source: Any = "default"
    topic: str
    start: str | int = "latest"
    group: str = ""
    envelope: bool = False
    websocket: bool = True
    origins: list[str] = []
    prefetch: int = PREFETCH
    keep_alive: Duration = QUIET
    lifetime: Duration = LIFETIME
    streams: int = STREAMS
    streams_each: int = STREAMS_EACH
    retry: Duration = 3.0


class _Place:
    """One open stream, counted from here until ``leave``."""

    __slots__ = ("_open", "_who")

    def __init__(self, open: Counter[str], who: str) -> None:
        self._open = open
        self._who: str | None = who
        open[who] += 1

    def leave(self) -> None:
        who, self._who = self._who, None
        if who is not None:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


class Subscribe:
    """The handler that streams. Last-Event-ID (or ``?last_event_id=``, where a page cannot set fields) says what was seen already."""

    name = "subscribe"

    def __init__(self, subscriber: Subscriber, settings: Settings, params: list[str] | None = None) -> None:
        self._subscriber = subscriber
        self.parts = (subscriber,) if isinstance(subscriber, Connection) else ()
        with below("group"):
            self._group = Template(settings.group, params=params) if settings.group else None
        with below("topic"):
            self._topic = Template(settings.topic, params=params)
        self._start = settings.start
        self._envelope = settings.envelope
        self._websocket = settings.websocket
        self._origins = Cors(CorsSettings(origins=settings.origins)) if settings.origins else None
        self._prefetch = settings.prefetch
        self._quiet, self._lifetime = seconds(settings.keep_alive), seconds(settings.lifetime) or inf
        self._streams, self._each = settings.streams, settings.streams_each
        self._hello = f"retry: {int(seconds(settings.retry) * 1000)}\n\n".encode()
        self._open: Counter[str] = Counter()
        self.opened = self.refused = self.broken = 0

    async def __call__(self, request: Request) -> Response:
        """A stream that lasts; 400 for a bad Last-Event-ID, 403 for a page of another origin, 429 and 503 when there are too many."""
        context = context_of(request)
        who = owner_of(context.consumer) or context.client
        upgrade = request.upgrade == "websocket" and self._websocket
        refusal = self._refusal(request, who, upgrade)
        if refusal is not None:
            self.refused += 1
            return refusal
        view = View(request, context)
        pattern = self._topic.render(view, _word)
        group = self._group.render(view, _name) if self._group else None
        try:
            start = resumed(self._seen(request), self._start)
        except ValueError as error:
            return problem(400, "Bad Request", str(error))
        place = _Place(self._open, who)
        try:
            subscription = self._subscriber.subscribe(pattern, group=group, start=start, prefetch=self._prefetch)
            stream = self._socket if upgrade else self._events
            response = await stream(request, context, subscription, pattern, place)
        except (BlocksError, OSError) as error:
            place.leave()
            return refused(error, "the subscription cannot be opened now")
        except BaseException:
            place.leave()
            raise
        self.opened += 1
        return response

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"opened": self.opened, "open": self._open.total(), "refused": self.refused, "broken": self.broken}

    # -- before

    def _refusal(self, request: Request, who: str, upgrade: bool) -> Response | None:
        if request.method != "GET":
            return problem(405, "Method Not Allowed", "this is a stream", headers=((b"allow", b"GET"),))
        if upgrade and accept(request) is None:
            told = ((b"sec-websocket-version", b"13"),)
            return problem(400, "Bad Request", "this is not a WebSocket handshake of version 13", headers=told)
        if upgrade and not self._may_connect(request):
            return problem(403, "Forbidden", "pages of this origin may not open the stream", reason="origin")
        if self._open.total() >= self._streams:
            return problem(503, "Service Unavailable", "too many streams are open", headers=((b"retry-after", b"5"),))
        if self._open[who] >= self._each:
            return problem(
                429,
                "Too Many Requests",
                "too many streams are open for this consumer",
                headers=((b"retry-after", b"5"),),
            )
        return None

    def _may_connect(self, request: Request) -> bool:
        """Browsers let any page open a WebSocket with the user's cookies, so the page's origin is checked here (RFC 6455 §10.2)."""
        origin = request.headers.find(b"origin")
        if origin is None:
            return True
        own = origin.partition(b"://")[2].lower() == (request.headers.find(b"host") or b"").lower()
        return own or (self._origins is not None and self._origins.allows(origin))

    def _seen(self, request: Request) -> str | None:
        value = request.headers.find(b"last-event-id")
        if value is not None:
            return value.decode("latin-1")
        return pairs(request.query).get("last_event_id", [None])[0] if request.query else None

    # -- Server-Sent Events

    async def _events(
        self, request: Request, context: Context, subscription: Any, pattern: str, place: _Place
    ) -> Response:
        def ended(error: Exception | None) -> None:
            self.broken += error is not None
            place.leave()
            stream.finish()

        feed = Feed(
            subscription, lambda delivery: as_event(delivery, pattern, self._envelope), lambda data: stream.feed(data), ended,
            idle=KEEP_ALIVE, quiet=self._quiet, lifetime=self._lifetime,
        )  # fmt: skip
        stream = Stream(feed)
        await feed.open()
        context.at_end(lambda _: feed.cancel())
        stream.feed(self._hello)
        fields = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
        return Response(200, fields, stream)

    # -- WebSocket

    async def _socket(
        self, request: Request, context: Context, subscription: Any, pattern: str, place: _Place
    ) -> Response:
        def encode(delivery: Delivery) -> bytes:
            if self._envelope:
                return frame(TEXT, msgspec.json.encode(whole(delivery, event_id(delivery, pattern))))
            try:
                delivery.payload.decode()
            except UnicodeDecodeError:
                return frame(BINARY, delivery.payload)
            return frame(TEXT, delivery.payload)

        def ended(error: Exception | None) -> None:
            self.broken += error is not None
            place.leave()
            socket.over(error)

        socket = Socket()
        feed = Feed(
            subscription, encode, socket.send, ended, idle=PING_FRAME, quiet=self._quiet, lifetime=self._lifetime
        )
        socket.feed = feed
        await feed.open()
        key = accept(request)
        assert key is not None
        return Response(101, {"sec-websocket-accept": key.decode()}, socket)


def _name(name: str, text: str) -> str:
    """A value in a group's name; unlike a topic's word it may have dots, as addresses and hosts do."""
    return _word(name, text.replace(".", "_")) and text


def handler(settings: Any, site: Site) -> Subscribe:
    """The handler of a route's ``subscribe``: a table, or the topic alone. Raises ``ConfigError``."""
    if isinstance(settings, str):
        settings = Settings(topic=settings)
    if not isinstance(settings, Settings):
        raise ConfigError("subscribe is a topic, or a table with topic")
    with below("source"):
        subscriber = site.subscriber(settings.source) if isinstance(settings.source, str) else settings.source
    return Subscribe(subscriber, settings, list(site.route.template.names))


def subscribe(source: Subscriber | str, topic: str, **settings: Any) -> Subscribe:
    """A streaming handler in code: ``route("/feed/{region}", subscribe(broker, "orders.{region}"))``. Raises ``ConfigError``.

    ``source`` may be a broker's URL: then the handler holds the connection, and whoever runs the gateway runs it.
    """
    if isinstance(source, str):
        source = Connection(source)
    return Subscribe(source, Settings(source=source, topic=topic, **settings))
