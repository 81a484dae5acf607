"""A request becomes a message, and the client hears of it only when the broker has made it durable: 202 and the receipt.

Under an Idempotency-Key the message has an id made of consumer and key, so that the broker drops what it has already.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration, Size
from blocks.core.errors import BlocksError, ClientFault, ConfigError, Failure
from blocks.core.messaging import Publisher, Receipt
from blocks.core.quantities import seconds, size
from blocks.gateway.context import context_of
from blocks.gateway.idempotency.rules import read_key
from blocks.gateway.ownership import owner_of
from blocks.gateway.problem import problem
from blocks.gateway.transform.template import Template, View
from blocks.gateway.validate.body import BadBody, decode, is_json
from blocks.http.message import Request, Response

from .connection import Connection

if TYPE_CHECKING:
    from blocks.gateway.site import Site

SHORTHAND = (str,)
MAX_BODY = 1024 * 1024  # bytes; Kafka's message.max.bytes and NATS's max_payload
AT_ONCE = 1000  # publishes under way; more get 503
TIMEOUT = 10.0  # seconds to the acknowledgement; then 504: the message may or may not be there
MAX_HEADER = 4096
_OF_THE_CLIENT = frozenset((400, 413, 422, 429))
_BAD_IN_TOPIC = frozenset(".*> \t\r\n\0/#+")


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``to``: a publisher (its name; an object in code); ``topic``, ``key`` and ``headers``: templates; ``forward``: request fields that
    become headers of the message. ``required_key``: a request without an Idempotency-Key gets 400.
    """

    to: Any = "default"
    topic: str
    key: str = ""
    headers: dict[str, str] = {}
    forward: tuple[str, ...] = ("content-type", "traceparent", "tracestate")
    methods: tuple[str, ...] = ("POST",)
    required_key: bool = False
    empty: bool = False
    max_body: Size = MAX_BODY
    at_once: int = AT_ONCE
    timeout: Duration = TIMEOUT


class Publish:
    """The handler that publishes."""

    name = "publish"

    def __init__(self, publisher: Publisher, settings: Settings, params: list[str] | None = None) -> None:
        self._publisher = publisher
        self.parts = (publisher,) if isinstance(publisher, Connection) else ()
        with below("key"):
            self._key = Template(settings.key, params=params) if settings.key else None
        with below("headers"):
            self._headers = {name: Template(text, params=params) for name, text in settings.headers.items()}
        with below("topic"):
            self._topic = Template(settings.topic, params=params)
        self._forward = [(name.lower(), name.lower().encode("latin-1")) for name in settings.forward]
        self._methods = frozenset(method.upper() for method in settings.methods)
        self._required = settings.required_key
        self._empty = settings.empty
        self._max_body = size(settings.max_body)
        self._at_once = settings.at_once
        self._timeout = seconds(settings.timeout)
        used = self._topic.names.union(
            *(one.names for one in (*self._headers.values(), *([self._key] if self._key else ())))
        )
        self._looks_inside = any(name == "body" or name.startswith("body.") for name in used)
        self._running = 0
        self.published = self.duplicates = self.failed = 0

    async def __call__(self, request: Request) -> Response:
        """202 with the receipt; 400, 405, 413 for what cannot be a message; 503, 504 when the broker does not take it."""
        if request.method not in self._methods:
            allow = ", ".join(sorted(self._methods)).encode()
            return problem(405, "Method Not Allowed", "this publishes a message", headers=((b"allow", allow),))
        if self._running >= self._at_once:
            self.failed += 1
            return problem(
                503, "Service Unavailable", "too many messages are on their way", headers=((b"retry-after", b"1"),)
            )
        self._running += 1
        try:
            return await self._publish(request)
        finally:
            self._running -= 1

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {
            "published": self.published,
            "duplicates": self.duplicates,
            "failed": self.failed,
            "running": self._running,
        }

    async def _publish(self, request: Request) -> Response:
        payload = await request.read(self._max_body)
        if len(payload) > self._max_body:
            return problem(413, "Content Too Large", f"a message of more than {self._max_body} bytes is not taken")
        if not payload and not self._empty:
            return problem(400, "Bad Request", "a message without a body is not taken")
        context = context_of(request)
        given = request.headers.find(b"idempotency-key")
        id: str | None = None
        if given is not None:
            key = read_key(given)
            if key is None:
                return problem(400, "Idempotency-Key is malformed", "a string of 1 to 255 characters is asked for")
            id = sha256(f"{context.route.name}\0{owner_of(context.consumer)}\0{key}".encode()).hexdigest()[:40]
        elif self._required:
            return problem(400, "Idempotency-Key is missing", "this route asks for an Idempotency-Key")
        body: Any = None
        if self._looks_inside and is_json(request.headers):
            try:
                body = decode(payload)
            except BadBody as error:
                return problem(error.status, "Bad Request", str(error))
        view = View(request, context, body)
        topic = self._topic.render(view, _word)
        message_key = self._key.render(view).encode() if self._key else None
        return await self._send(topic, payload, message_key, self._carried(request, view), id)

    def _carried(self, request: Request, view: View) -> dict[str, str]:
        headers: dict[str, str] = {}
        for name, raw in self._forward:
            value = request.headers.find(raw)
            if value is not None:
                headers[name] = value.decode("latin-1")[:MAX_HEADER]
        for name, template in self._headers.items():
            headers[name] = template.render(view)[:MAX_HEADER]
        return headers

    async def _send(
        self, topic: str, payload: bytes, key: bytes | None, headers: dict[str, str], id: str | None
    ) -> Response:
        try:
            async with asyncio.timeout(self._timeout):
                receipt = await self._publisher.publish(topic, payload, key=key, headers=headers, id=id)
        except TimeoutError:
            self.failed += 1
            return problem(
                504,
                "Gateway Timeout",
                "the broker did not acknowledge in time; try again under the same Idempotency-Key",
            )
        except (BlocksError, OSError) as error:
            self.failed += 1
            return refused(error, "the broker does not take the message now")
        self.published += 1
        self.duplicates += receipt.duplicate
        return _receipt(receipt, id)


def refused(error: BlocksError | OSError, detail: str) -> Response:
    """What a broker's error is to a client: its own fault stays a 4xx; what the broker has against the gateway is none of the client's.

    Raises the error where it is the client's: too large, not valid, not a topic.
    """
    if isinstance(error, Failure) and error.status in _OF_THE_CLIENT:
        raise error
    reason = error.reason if isinstance(error, Failure) else type(error).__name__
    if isinstance(error, Failure) and error.status < 500:
        return problem(502, "Bad Gateway", "the broker does not let the gateway do this", reason=reason)
    return problem(503, "Service Unavailable", detail, headers=((b"retry-after", b"1"),), reason=reason)


def _receipt(receipt: Receipt, id: str | None) -> Response:
    told: dict[str, Any] = {"topic": receipt.topic, "offset": receipt.offset, "duplicate": receipt.duplicate}
    if id is not None:
        told["id"] = id
    response = Response.json(told, 202)
    response.headers.replace((), ((b"cache-control", b"no-store"),))
    return response


def _word(name: str, text: str) -> str:
    """A value as one word of a topic: it can neither add a word nor be a wildcard."""
    if not text or len(text) > 128 or not _BAD_IN_TOPIC.isdisjoint(text) or not text.isprintable():
        raise ClientFault(f"the value of {name} cannot be a word of a topic", reason="bad-topic")
    return text


def handler(settings: Any, site: Site) -> Publish:
    """The handler of a route's ``publish``: a table, or the topic alone. Raises ``ConfigError``."""
    if isinstance(settings, str):
        settings = Settings(topic=settings)
    if not isinstance(settings, Settings):
        raise ConfigError("publish is a topic, or a table with topic")
    with below("to"):
        publisher = site.publisher(settings.to) if isinstance(settings.to, str) else settings.to
    return Publish(publisher, settings, list(site.route.template.names))


def publish(to: Publisher | str, topic: str, **settings: Any) -> Publish:
    """A publishing handler in code: ``route("/orders", publish(broker, "orders.new"), methods="POST")``. Raises ``ConfigError``.

    ``to`` may be a broker's URL: then the handler holds the connection, and whoever runs the gateway runs it.
    """
    if isinstance(to, str):
        to = Connection(to)
    return Publish(to, Settings(to=to, topic=topic, **settings))
