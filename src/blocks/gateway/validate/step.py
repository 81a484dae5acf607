"""The step that validates: requests before they go to a service, answers before they go to the client."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import size
from blocks.gateway.context import Context
from blocks.gateway.problem import problem
from blocks.http.body import Stream, TooLarge
from blocks.http.message import Request, Response

from .body import MAX_BODY, MAX_DEPTH, BadBody, decode, is_json
from .documents import load
from .openapi import Content, Document, Operation
from .parameters import pairs
from .schema import MAX_ERRORS, Fault, Schema

if TYPE_CHECKING:
    from blocks.gateway.site import Site

ENFORCE: Final = "enforce"
REPORT: Final = "report"
OFF: Final = "off"
_PLAINLY = frozenset(
    {b"accept-encoding", b"range", b"if-range"}
)  # an answer that must be judged is asked for whole and uncoded
_OPERATION = "operation"  # the note under which the operation of a request is kept for its answer


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``schema``: of JSON request bodies; ``response``: of JSON answers of 2xx; each a file or a table. Or ``openapi``: a file or table.

    ``mode`` and ``response_mode``: ``enforce``, ``report`` (count and note, let pass) or ``off``. ``undescribed``: ``refuse`` or ``pass``
    operations and query parameters that the document does not know. ``unique``: refuse objects that name a member twice.
    """

    schema: str | dict[str, Any] | None = None
    response: str | dict[str, Any] | None = None
    openapi: str | dict[str, Any] | None = None
    base: str | None = None
    mode: Literal["enforce", "report", "off"] = ENFORCE
    response_mode: Literal["enforce", "report", "off"] = REPORT
    undescribed: Literal["refuse", "pass"] = "refuse"
    formats: bool = True
    unique: bool = False
    max_body: Size = MAX_BODY
    max_depth: int = MAX_DEPTH


class Validate:
    """The step of a route's ``validate``. Faults of requests are 400 (malformed) or 422 (invalid); of answers, enforced, 502."""

    name = "validate"

    def __init__(
        self, settings: Settings, *, schema: Schema | None, response: Schema | None, document: Document | None
    ) -> None:
        self._schema = schema
        self._response = response
        self._document = document
        self._mode = settings.mode
        self._response_mode = settings.response_mode
        self._refuse_unknown = settings.undescribed == "refuse"
        self._unique = settings.unique
        self._limit = size(settings.max_body)
        self._depth = settings.max_depth
        self.invalid_requests = self.invalid_responses = self.unjudged = 0

    def check(self, request: Request, context: Context) -> Response | Awaitable[Response | None] | None:
        """None for what is valid; a refusal; or, while the body is still coming, something to await."""
        if self._mode == OFF and self._response_mode == OFF:
            return None
        if self._response_mode == ENFORCE and not _PLAINLY.isdisjoint(request.headers.section.index):
            request.headers = request.headers.copy()
            request.headers.replace(_PLAINLY, ())
        content: Content | None = None
        faults: list[Fault] = []
        if self._document is not None:
            found = self._document.find(request.method, context.path.partition("?")[0])
            if found is None:
                return self._undescribed(context)
            operation, params = found
            context.notes[_OPERATION] = operation
            faults = self._parameters(request, operation, params)
            content = operation.body
        if self._schema is None and content is None:
            return self._verdict(context, faults)
        if isinstance(request.body, Stream):
            return self._when_read(request, context, content, faults)
        return self._body(request, context, content, faults)

    def after(self, request: Request, response: Response, context: Context) -> Response | Awaitable[Response]:
        """The answer; when enforced and invalid, 502 in its place."""
        if self._response_mode == OFF or response.status in (204, 304) or request.method == "HEAD":
            return response
        schema = self._answer_schema(response, context)
        if schema is None or not is_json(response.headers):
            return response
        if b"content-encoding" in response.headers.section.index or response.status == 206:
            self.unjudged += 1
            if self._response_mode == REPORT:
                return response
            response.discard()
            return problem(
                502, "Bad Gateway", "the service's answer is coded or partial, and cannot be validated", reason="coded"
            )
        body = response.body
        if isinstance(body, bytes):
            return self._judged(response, schema, context)
        if (
            not isinstance(body, Stream)
            or (body.length is None and self._response_mode == REPORT)
            or (body.length or 0) > self._limit
        ):
            self.unjudged += 1
            return response
        return self._when_answered(response, schema, context)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {
            "invalid_requests": self.invalid_requests,
            "invalid_responses": self.invalid_responses,
            "unjudged_responses": self.unjudged,
        }

    # -- requests

    def _undescribed(self, context: Context) -> Response | None:
        if not self._refuse_unknown:
            return None
        self.invalid_requests += 1
        if self._mode != ENFORCE:
            context.notes["invalid_request"] = "not described"
            return None
        return problem(404, "Not Found", "this operation is not described by the API")

    def _parameters(self, request: Request, operation: Operation, params: Mapping[str, list[str]]) -> list[Fault]:
        query = pairs(request.query)
        given: dict[str, Mapping[str, list[str]]] = {"path": params, "query": query}
        faults: list[Fault] = []
        for parameter in operation.parameters:
            if parameter.place not in given:
                given[parameter.place] = _fields(request) if parameter.place == "header" else _cookies(request)
            faults.extend(parameter.faults(given[parameter.place]))
        if self._refuse_unknown:
            known = [parameter for parameter in operation.parameters if parameter.place == "query"]
            strange = [name for name in query if not any(parameter.owns(name) for parameter in known)]
            faults.extend(
                Fault(f"/query/{name[:80]}", "this parameter is not described by the API") for name in strange
            )
        return faults[:MAX_ERRORS]

    async def _when_read(
        self, request: Request, context: Context, content: Content | None, faults: list[Fault]
    ) -> Response | None:
        await request.read(self._limit)
        return self._body(request, context, content, faults)

    def _body(
        self, request: Request, context: Context, content: Content | None, faults: list[Fault]
    ) -> Response | None:
        data = request.body
        assert isinstance(data, bytes)
        if not data:
            wanted = request.method in ("POST", "PUT", "PATCH") if content is None else content.required
            return self._verdict(context, [*faults, Fault("/body", "a body is required")] if wanted else faults)
        if len(data) > self._limit:
            return problem(413, "Content Too Large", f"a body of more than {self._limit} bytes is not taken")
        schema = self._schema
        if content is not None:
            described, schema = content.find(request.headers.find(b"content-type") or b"")
            if not described:
                return self._typed(context, content.types)
        elif not is_json(request.headers):
            return self._typed(context, "application/json")
        if schema is None or not is_json(request.headers):
            return self._verdict(context, faults)
        try:
            value = decode(data, depth=self._depth, unique=self._unique)
        except BadBody as error:
            return self._verdict(context, [Fault("/body", str(error))], error.status)
        if schema.accepts(value):
            return self._verdict(context, faults)
        return self._verdict(context, [*faults, *schema.faults(value, at="/body")])

    def _typed(self, context: Context, told: str) -> Response | None:
        if self._mode != ENFORCE:
            return self._verdict(context, [Fault("/header/content-type", "the body's media type is not described")])
        self.invalid_requests += 1
        accept = ((b"accept", told.encode("latin-1", "replace")),)
        return problem(415, "Unsupported Media Type", "the body's media type is not taken", headers=accept)

    def _verdict(self, context: Context, faults: list[Fault], status: int = 422) -> Response | None:
        if not faults:
            return None
        self.invalid_requests += 1
        if self._mode != ENFORCE:
            context.notes["invalid_request"] = [fault.told() for fault in faults]
            return None
        title = {400: "Bad Request", 413: "Content Too Large"}.get(status, "Unprocessable Content")
        return problem(
            status,
            title,
            "the request is not as the API describes it",
            errors=[fault.told() for fault in faults[:MAX_ERRORS]],
        )

    # -- answers

    def _answer_schema(self, response: Response, context: Context) -> Schema | None:
        operation: Operation | None = context.noted.get(_OPERATION)
        if operation is not None:
            problem_type = response.headers.find(b"content-type") == b"application/problem+json"
            if problem_type and str(response.status) not in operation.responses:
                return None  # a refusal of the gateway itself, or one that the document says nothing of
            described, content = operation.response(response.status)
            if described and content is not None:
                return content.find(response.headers.find(b"content-type") or b"")[1]
            return None
        return self._response if 200 <= response.status < 300 else None

    async def _when_answered(self, response: Response, schema: Schema, context: Context) -> Response:
        try:
            await response.read(self._limit)
        except TooLarge:
            return problem(502, "Bad Gateway", "the service's answer is too large to be validated", reason="too-large")
        return self._judged(response, schema, context)

    def _judged(self, response: Response, schema: Schema, context: Context) -> Response:
        try:
            value = decode(response.body, depth=self._depth)
        except BadBody as error:
            faults = [Fault("/body", str(error))]
        else:
            faults = [] if schema.accepts(value) else schema.faults(value, at="/body")
        if not faults:
            return response
        self.invalid_responses += 1
        context.notes["invalid_response"] = [fault.told() for fault in faults]
        if self._response_mode != ENFORCE:
            return response
        return problem(
            502, "Bad Gateway", "the service's answer is not as the API describes it", reason="invalid-response"
        )


def _fields(request: Request) -> dict[str, list[str]]:
    return {
        name.decode("latin-1"): [value.decode("latin-1") for value in values]
        for name, values in request.headers.section.index.items()
    }


def _cookies(request: Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in request.headers.section.index.get(b"cookie", ()):
        for pair in line.decode("latin-1").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.setdefault(name, []).append(value)
    return found


def step(settings: Any, site: Site) -> Validate:
    """The step of a route's ``validate``: a table, or the file of an OpenAPI document or JSON Schema. Raises ``ConfigError``."""
    if isinstance(settings, str):
        found = load(settings, site)
        settings = Settings(openapi=found) if "openapi" in found else Settings(schema=found)
    if not isinstance(settings, Settings):
        raise ConfigError("validate is a file, or a table with schema, response or openapi")
    for key in ("mode", "response_mode"):
        if getattr(settings, key) not in (ENFORCE, REPORT, OFF):
            raise ConfigError(f"{key} is {getattr(settings, key)!r}; it can be enforce, report or off")
    if settings.undescribed not in ("refuse", "pass"):
        raise ConfigError(f"undescribed is {settings.undescribed!r}; it can be refuse or pass")
    if (settings.openapi is None) == (settings.schema is None and settings.response is None):
        raise ConfigError("validate needs either openapi, or schema and/or response")
    schema = response = document = None
    if settings.schema is not None:
        with below("schema"):
            schema = Schema(load(settings.schema, site), formats=settings.formats)
    if settings.response is not None:
        with below("response"):
            response = Schema(load(settings.response, site), formats=settings.formats)
    if settings.openapi is not None:
        with below("openapi"):
            document = Document(load(settings.openapi, site), formats=settings.formats, base=settings.base)
    return Validate(settings, schema=schema, response=response, document=document)
