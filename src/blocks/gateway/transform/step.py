"""The step that transforms: the request before it goes to a service, the answer before it goes to the client."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import size
from blocks.gateway.context import Context
from blocks.gateway.problem import problem
from blocks.gateway.validate.body import BadBody, decode, is_json
from blocks.http.body import Stream, TooLarge
from blocks.http.message import Request, Response

from .fields import Fields, FieldSettings
from .shape import Shape, ShapeSettings
from .target import Path, Query, QuerySettings
from .template import View

if TYPE_CHECKING:
    from blocks.gateway.site import Site

MAX_BODY = 1024 * 1024  # bytes; a body that is reshaped is held whole
_MEASURES = (b"content-length", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag", b"accept-ranges")
_PLAINLY = frozenset(
    {b"accept-encoding", b"range", b"if-range"}
)  # an answer that is reshaped is asked for whole and uncoded


class ResponseSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``status``: from → to; ``headers`` and ``body`` as for requests. Bodies of JSON answers only, up to ``max_body``."""

    status: dict[str, int] = {}
    headers: FieldSettings | None = None
    body: ShapeSettings | None = None


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``method``, ``path`` (a template) or ``strip_prefix``/``prefix`` or ``pattern``/``replacement``, ``query``, ``headers``, ``body``."""

    method: str = ""
    path: str = ""
    strip_prefix: str = ""
    prefix: str = ""
    pattern: str = ""
    replacement: str = ""
    query: QuerySettings | None = None
    headers: FieldSettings | None = None
    body: ShapeSettings | None = None
    response: ResponseSettings | None = None
    max_body: Size = MAX_BODY


class Transform:
    """The step of a route's ``transform``. A request body that must be JSON and is not gets 400; such an answer is a 502."""

    name = "transform"

    def __init__(self, settings: Settings, params: Collection[str] | None = None, rest: str | None = None) -> None:
        answer = settings.response or ResponseSettings()
        self._method = settings.method.upper()
        rewritten = settings.path or settings.strip_prefix or settings.prefix or settings.pattern
        self._path = Path(
            template=settings.path, strip=settings.strip_prefix, prefix=settings.prefix, pattern=settings.pattern,
            replacement=settings.replacement, params=params, rest=rest,
        ) if rewritten else None  # fmt: skip
        with below("query"):
            self._query = Query(settings.query, params) if settings.query else None
        with below("headers"):
            self._fields = Fields(settings.headers or FieldSettings(), params)
        with below("body"):
            self._body = Shape(settings.body or ShapeSettings(), params=params)
        self._limit = size(settings.max_body)
        with below("response", "status"):
            self._status = {_status(text): _status(str(to)) for text, to in answer.status.items()}
        with below("response", "headers"):
            self._out_fields = Fields(answer.headers or FieldSettings(), params)
        with below("response", "body"):
            self._out_body = Shape(answer.body or ShapeSettings(), params=params)

    def check(self, request: Request, context: Context) -> Response | Awaitable[Response | None] | None:
        """Change the request; None, unless its body is not the JSON that it must be."""
        if self._body.idle:
            self._apply(request, context, None)
            return None
        if isinstance(request.body, Stream):
            return self._when_read(request, context)
        return self._with_body(request, context)

    def after(self, request: Request, response: Response, context: Context) -> Response | Awaitable[Response]:
        """The changed answer. Refusals of the gateway itself (problem documents) keep their bodies."""
        if self._status:
            response.status = self._status.get(response.status, response.status)
        if self._out_body.idle or not is_json(response.headers) or request.method == "HEAD":
            return self._finish(request, response, context, None)
        if b"content-encoding" in response.headers.section.index or response.status == 206:
            response.discard()
            return _unusable("is coded or partial although it was not asked to be, and cannot be reshaped")
        if isinstance(response.body, Stream):
            return self._when_answered(request, response, context)
        return self._reshaped(request, response, context)

    # -- requests

    async def _when_read(self, request: Request, context: Context) -> Response | None:
        await request.read(self._limit)
        return self._with_body(request, context)

    def _with_body(self, request: Request, context: Context) -> Response | None:
        data = request.body
        assert isinstance(data, bytes)
        value: Any = None
        if data:
            if not is_json(request.headers):
                return problem(
                    415, "Unsupported Media Type", "the body must be JSON", headers=((b"accept", b"application/json"),)
                )
            try:
                value = decode(data)
            except BadBody as error:
                return problem(error.status, "Bad Request", str(error))
        self._apply(request, context, value)
        return None

    def _apply(self, request: Request, context: Context, value: Any) -> None:
        view = View(request, context, value)
        target, query = request.target.partition("?")[::2]
        made = self._path.apply(target, view) if self._path else target
        asked = self._query.apply(query, view) if self._query else query
        fields = None if self._fields.idle else request.headers.copy()
        if fields is not None:
            self._fields.apply(fields, view)
        if not self._body.idle:
            shaped = self._body.apply(value, view)
            request.body = msgspec.json.encode(shaped)
            fields = fields or request.headers.copy()
            fields.replace((*_MEASURES, b"content-type"), ((b"content-type", b"application/json"),))
        if not self._out_body.idle and not _PLAINLY.isdisjoint(request.headers.section.index):
            fields = fields or request.headers.copy()
            fields.replace(_PLAINLY, ())
        if fields is not None:
            request.headers = fields
        request.state.setdefault("target", request.target)  # for the log: as it came
        request.target = f"{made}?{asked}" if asked else made
        if self._method:
            request.method = self._method

    # -- answers

    async def _when_answered(self, request: Request, response: Response, context: Context) -> Response:
        try:
            await response.read(self._limit)
        except TooLarge:
            return _unusable("is too large to be reshaped")
        return self._reshaped(request, response, context)

    def _reshaped(self, request: Request, response: Response, context: Context) -> Response:
        if len(response.body) > self._limit:
            return _unusable("is too large to be reshaped")
        if not response.body or response.headers.find(b"content-type") == b"application/problem+json":
            return self._finish(request, response, context, None)
        try:
            value = decode(response.body)
        except BadBody as error:
            return _unusable(f"cannot be reshaped: {error}")
        view = View(request, context, value)
        response.body = msgspec.json.encode(self._out_body.apply(value, view))
        response.headers.replace(_MEASURES, ())
        return self._finish(request, response, context, value)

    def _finish(self, request: Request, response: Response, context: Context, value: Any) -> Response:
        if not self._out_fields.idle:
            self._out_fields.apply(response.headers, View(request, context, value))
        return response


def _unusable(why: str) -> Response:
    return problem(502, "Bad Gateway", f"the service's answer {why}", reason="bad-answer")


def _status(text: str) -> int:
    if not text.isdecimal() or not 200 <= int(text) <= 599:
        raise ConfigError(f"{text!r} is not the status of an answer")
    return int(text)


def step(settings: Any, site: Site) -> Transform:
    """The step of a route's ``transform``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError("transform is a table with path, query, headers, body or response")
    return Transform(settings, site.route.template.names, site.route.template.rest)
