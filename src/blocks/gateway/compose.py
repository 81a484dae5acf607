"""A route that asks several services, side by side where it can, and answers once: under one deadline, with every failure stated."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration, Size
from blocks.core.errors import ConfigError, Failure
from blocks.core.quantities import seconds, size
from blocks.http.handler import Handler
from blocks.http.message import Headers, Request, Response, Section, field_name, field_value

from .composition import Branch, Lack, levels, mark_raw, merge
from .context import context_of
from .problem import problem
from .transform.shape import Shape, ShapeSettings
from .transform.target import Path
from .transform.template import Template, View
from .validate.body import MAX_BODY, BadBody, decode, is_json

if TYPE_CHECKING:
    from .site import Site

DEADLINE = 10.0  # seconds for all branches together; KrakenD's default is 2, nginx's proxy_read_timeout 60
MAX_BRANCHES = 32
_JSON = [(b"content-type", b"application/json")]


class BranchSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``service`` (a name, or a handler in code) and ``path`` (a template; ``{other.id}`` is from the answer of the branch ``other``).

    ``at``: where the answer goes (default: under the name; "" merges it). ``mode``: ``required``, ``optional``, or ``default`` (given).
    ``relay``: statuses of a required branch that become the answer's own. ``forward``: request fields that go along. ``body``: a template.
    ``keep``, ``remove`` and ``rename`` filter the answer; ``after``: branches to wait for; ``timeout``: a bound of its own.
    """

    service: Any
    path: str
    method: str = "GET"
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    forward: tuple[str, ...] = ("accept-language", "traceparent", "tracestate", "x-request-id")
    body: Any = None
    at: str | None = None
    mode: Literal["required", "optional", "default"] = "required"
    default: Any = None
    relay: list[int] = []
    keep: list[str] = []
    remove: list[str] = []
    rename: dict[str, str] = {}
    after: list[str] = []
    timeout: Duration | None = None


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``branches`` by name; ``deadline`` for all; ``errors``: where failures are stated ("" for the field alone); ``shape``: of the whole.

    ``partial_status``: the status of an answer that lacks an optional part. ``max_answer``: bytes taken from each service.
    """

    branches: dict[str, BranchSettings]
    deadline: Duration = DEADLINE
    errors: str = "errors"
    partial_status: int = 200
    shape: ShapeSettings | None = None
    max_answer: Size = MAX_BODY


class Composition:
    """The handler that composes. A required branch that fails makes the whole answer fail: 504 when time is up, else 502."""

    name = "compose"

    def __init__(
        self, settings: Settings, services: dict[str, Handler], params: list[str] | None = None, rest: str | None = None
    ) -> None:
        if not 1 <= len(settings.branches) <= MAX_BRANCHES:
            raise ConfigError(f"a composition has 1 to {MAX_BRANCHES} branches")
        names = list(settings.branches)
        self._branches = [_placed(name, one, names, params) for name, one in settings.branches.items()]
        mark_raw(self._branches)
        self._steps = levels(self._branches)
        self._paths = {
            name: Path(template=one.path, params=params, rest=rest, roots=names)
            for name, one in settings.branches.items()
        }
        self._order = {name: place for place, name in enumerate(names)}
        self._services = services
        self.parts = tuple(dict.fromkeys(services.values()))
        self._deadline = seconds(settings.deadline)
        self._errors = settings.errors
        self._partial = settings.partial_status
        self._shape = Shape(settings.shape or ShapeSettings(), params=params)
        self._limit = size(settings.max_answer)
        self.failures = dict.fromkeys(names, 0)

    async def __call__(self, request: Request) -> Response:
        """Ask, merge and answer."""
        context = context_of(request)
        body: Any = None
        if request.body and is_json(request.headers):
            try:
                body = decode(await request.read(self._limit))
            except BadBody as error:
                return problem(error.status, "Bad Request", str(error))
        loop = asyncio.get_running_loop()
        until = min(loop.time() + self._deadline, request.deadline)
        answers: dict[str, Any] = {}
        lacks: list[Lack] = []
        for step in self._steps:
            view = View(request, context, body, answers)
            failed = await self._step(step, view, answers, lacks, until)
            if failed is not None:
                return failed
        return self._merged(View(request, context, body, answers), answers, lacks)

    def figures(self) -> dict[str, int]:
        """Failures by branch."""
        return {f"failed_{name}": count for name, count in self.failures.items()}

    async def _step(
        self, step: list[Branch], view: View, answers: dict[str, Any], lacks: list[Lack], until: float
    ) -> Response | None:
        """Ask the branches of one step; an answer for the client if a required one failed, and then nobody is waited for."""
        loop = asyncio.get_running_loop()
        tasks: dict[asyncio.Task[Any], Branch] = {}
        for branch in step:
            if branch.needs(answers.keys() | self.failures.keys()) <= answers.keys():
                tasks[loop.create_task(self._ask(branch, view, until))] = branch
            elif (failed := self._lacking(branch, Lack(branch.name, 0, "needs-other"), answers, lacks)) is not None:
                return failed
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    branch, outcome = tasks[task], task.result()
                    if not isinstance(outcome, Lack):
                        answers[branch.name] = outcome
                    elif (failed := self._lacking(branch, outcome, answers, lacks)) is not None:
                        return failed
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                await asyncio.gather(*waiting, return_exceptions=True)
        return None

    def _lacking(self, branch: Branch, lack: Lack, answers: dict[str, Any], lacks: list[Lack]) -> Response | None:
        self.failures[branch.name] += 1
        lacks.append(lack)
        if not branch.required:
            if branch.default is not None:
                answers[branch.name] = branch.default
            return None
        told = [one.told() for one in lacks]
        if lack.status in branch.relay:
            return problem(lack.status, "Refused", f"the part {branch.name!r} could not be had", errors=told)
        if lack.reason == "timeout":
            return problem(504, "Gateway Timeout", f"the part {branch.name!r} did not come in time", errors=told)
        return problem(502, "Bad Gateway", f"the part {branch.name!r} could not be had", errors=told)

    async def _ask(self, branch: Branch, view: View, until: float) -> Any:
        """The branch's answer as a value (or as checked bytes), or what it lacks."""
        loop = asyncio.get_running_loop()
        limit = until if branch.timeout is None else min(until, loop.time() + branch.timeout)
        try:
            async with asyncio.timeout_at(None if limit == inf else limit):
                asked = self._request(branch, view, limit)
                response = await self._services[branch.name](asked)
                return await self._taken(branch, response, view)
        except TimeoutError:
            return Lack(branch.name, 0, "timeout")
        except Failure as error:
            return Lack(branch.name, 0, "timeout" if error.status == 504 else error.reason)
        except BadBody:
            return Lack(branch.name, 0, "bad-json")
        except Exception:
            return Lack(branch.name, 0, "internal")

    def _request(self, branch: Branch, view: View, deadline: float) -> Request:
        path = self._paths[branch.name].apply("/", view)
        query = "&".join(f"{name}={_quoted(template.render(view))}" for name, template in branch.query.items())
        index = view.request.headers.section.index
        pairs = [(name, value) for name in branch.forward for value in index.get(name, ())]
        host = index.get(b"host")
        if host is not None:
            pairs.insert(0, (b"host", host[0]))
        pairs.extend((name, field_value(template.render(view).encode())) for name, template in branch.fields)
        body = b""
        if branch.payload is not None:
            body = msgspec.json.encode(branch.payload.apply(None, view))
            pairs.extend(_JSON)
        headers = Headers.of(Section([*pairs, (b"accept", b"application/json")]))
        target = f"{path}?{query}" if query else path
        return Request(branch.method, target, headers, body, peer=view.request.peer, deadline=deadline)

    async def _taken(self, branch: Branch, response: Response, view: View) -> Any:
        if not 200 <= response.status < 300:
            response.discard()
            return Lack(branch.name, response.status, "status")
        data = await response.read(self._limit)
        if response.status == 204 or not data:
            return None
        if len(data) > self._limit:
            return Lack(branch.name, response.status, "body-too-large")
        if not is_json(response.headers):
            return Lack(branch.name, response.status, "not-json")
        if branch.raw:
            try:
                data.decode("utf-8")
                return msgspec.json.decode(data, type=msgspec.Raw)
            except (ValueError, RecursionError):
                return Lack(branch.name, response.status, "bad-json")
        value = decode(data)
        return value if branch.shape is None else branch.shape.apply(value, view)

    def _merged(self, view: View, answers: dict[str, Any], lacks: list[Lack]) -> Response:
        lacks.sort(key=lambda lack: self._order[lack.branch])
        body = merge(self._branches, answers, lacks, self._errors, self._shape, view)
        pairs = list(_JSON)
        if lacks:
            stated = ", ".join(f"{lack.branch};reason={lack.reason}" for lack in lacks)
            pairs.extend(((b"gateway-partial", stated.encode()), (b"cache-control", b"no-store")))
        return Response(self._partial if lacks else 200, Headers.of(Section(pairs)), body)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _placed(name: str, settings: BranchSettings, names: list[str], params: list[str] | None) -> Branch:
    with below("branches", name):
        return _branch(name, settings, names, params)


def _branch(name: str, settings: BranchSettings, names: list[str], params: list[str] | None) -> Branch:
    branch = Branch(name)
    others = [one for one in names if one != name]
    if params is not None and name in params:
        raise ConfigError(f"the branch {name!r} has the name of a path parameter")
    with below("path"):
        branch.path = Template(settings.path, params=params, roots=others)
    with below("query"):
        branch.query = {
            _quoted(key): Template(text, params=params, roots=others) for key, text in settings.query.items()
        }
    with below("headers"):
        branch.fields = [
            (field_name(key), Template(text, params=params, roots=others)) for key, text in settings.headers.items()
        ]
    branch.forward = tuple(field_name(key) for key in settings.forward)
    branch.method = settings.method.upper()
    branch.after = frozenset(settings.after)
    if settings.at is not None:
        branch.at = tuple(settings.at.split(".")) if settings.at else ()
    if settings.body is not None:
        branch.payload = Shape(ShapeSettings(template=settings.body), params=params, roots=others)
    filters = ShapeSettings(keep=settings.keep, remove=settings.remove, rename=settings.rename)
    shape = Shape(filters, params=params)
    branch.shape = None if shape.idle else shape
    branch.timeout = None if settings.timeout is None else seconds(settings.timeout)
    branch.relay = frozenset(settings.relay)
    if settings.mode not in ("required", "optional", "default"):
        raise ConfigError(f"mode is {settings.mode!r}; it can be required, optional or default")
    if (settings.mode == "default") != (settings.default is not None):
        raise ConfigError(f'the branch {name!r}: default goes with mode = "default", and only with it')
    branch.required = settings.mode == "required"
    branch.default = settings.default
    return branch


def handler(settings: Any, site: Site) -> Composition:
    """The handler of a route's ``compose``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError("compose is a table with branches")
    services: dict[str, Handler] = {}
    for name, one in settings.branches.items():
        with below("branches", name, "service"):
            services[name] = site.service(one.service) if isinstance(one.service, str) else one.service
    return Composition(settings, services, list(site.route.template.names), site.route.template.rest)


def compose(branches: dict[str, dict[str, Any]], **settings: Any) -> Handler:
    """A composition in code: ``route("/orders/{id}", compose({"user": {"service": users, "path": "/users/{id}"}}))``.

    Path parameters are not checked against a template here. Raises ``ConfigError``.
    """
    from blocks.core.config.decode import decode as as_settings

    table = as_settings(Settings, {"branches": branches, **settings})
    return Composition(table, {name: one.service for name, one in table.branches.items()})
