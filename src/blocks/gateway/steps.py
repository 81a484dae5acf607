"""A route's steps are compiled at load into flat tuples; a request then costs one call a step and no nested coroutine.

The order is fixed here, with a reason for each place: whoever reads this table knows what a request meets, and in which order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from blocks.core.config.complaint import Complaint, ConfigErrors, complaints_of
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler
from blocks.http.message import Request, Response

from .config.salvage import tell_all
from .context import Context

if TYPE_CHECKING:
    from .site import Site

Answer = Response | Awaitable[Response | None] | None
Check = Callable[[Request, Context], Answer]
After = Callable[[Request, Response, Context], Response | Awaitable[Response]]
Proceed = Callable[[Request], Coroutine[Any, Any, Response]]
Around = Callable[[Request, Context, Proceed], Coroutine[Any, Any, Response]]


@runtime_checkable
class Step(Protocol):
    """Has one or more of ``check``, ``after`` and ``around``; see ``Check``, ``After`` and ``Around`` for their shapes."""

    @property
    def name(self) -> str:
        """What ``explain`` and the metrics call it."""
        ...


class Feature(NamedTuple):
    """A keyword of ``route`` (and key of ``[[routes]]``), the module that makes its step, and why it stands at its place."""

    key: str
    home: str
    reason: str
    keys: tuple[str, ...] = ()  # several keywords that make one step, given to it as one table

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords of this feature."""
        return self.keys or (self.key,)


ROOM = "blocks.gateway"
FEATURES: tuple[Feature, ...] = (
    Feature("lifecycle", f"{ROOM}.versions", "Deprecation and Sunset are facts of the route: on every answer, refusals too",
            ("deprecated", "sunset", "successor")),
    Feature("access", f"{ROOM}.access", "an address is the cheapest thing to refuse"),
    Feature("cors", f"{ROOM}.cors", "a preflight has no credentials, so it comes before identity; its fields go on refusals too"),
    Feature("security_headers", f"{ROOM}.security_headers", "fields for every answer, refusals too"),
    Feature("accept", f"{ROOM}.validate.accept", "size and media type are known from the head: refused before any work is done"),
    Feature("early", f"{ROOM}.limits.early", "limits marked early protect the verification of credentials itself", ("limit",)),
    Feature("auth", f"{ROOM}.auth", "who asks: everything after it may depend on the consumer"),
    Feature("authorize", f"{ROOM}.auth.authorization", "whether the consumer may: a stranger must not use up a limit",
            ("scopes", "claims", "groups")),
    Feature("limit", f"{ROOM}.limits.step", "by now the consumer and the tier are known; all limits decide at once or not at all"),
    Feature("shed", f"{ROOM}.limits.shed", "only what passed its limits competes for the service's room"),
    Feature("validate", f"{ROOM}.validate", "reading a body is the dearest check: nothing that will be refused anyway is read"),
    Feature("transform", f"{ROOM}.transform", "what was validated is what the client sent; from here on it is what the service gets"),
    Feature("pagination", f"{ROOM}.pagination", "pages are cut outside of the cache, so that one stored answer serves many"),
    Feature("idempotency", f"{ROOM}.idempotency", "only a valid request is worth a stored answer, kept under the consumer's name"),
    Feature("cache", f"{ROOM}.cache", "a stored answer spares everything further in"),
    Feature("mirror", f"{ROOM}.mirror", "a copy is made only of what really goes to a service"),
    Feature("canary", f"{ROOM}.canary", "the last choice before the service"),
)  # fmt: skip
ENDS: tuple[Feature, ...] = (
    Feature("compose", f"{ROOM}.compose", "several services in one answer"),
    Feature("jobs", f"{ROOM}.jobs", "long work: 202 and a status resource"),
    Feature("publish", f"{ROOM}.messages.publish", "a message to a broker"),
    Feature("subscribe", f"{ROOM}.messages.subscribe", "a stream from a broker"),
)
_PLACES: dict[str, list[int]] = {}  # where in FEATURES the steps of each keyword stand
for _place, _feature in enumerate(FEATURES):
    for _word in _feature.keywords:
        _PLACES.setdefault(_word, []).append(_place)
KEYWORDS: dict[str, Feature] = {word: feature for feature in FEATURES for word in feature.keywords}


class Plan:
    """A route's steps, compiled: ``checks`` in order, ``afters`` for an answer given at each place, ``call`` to the service.

    ``checked[i]`` names the step of ``checks[i]``; ``afters[i]`` is what runs, in order, when that check answered, and
    ``afters[-1]`` when the service did. ``call`` is None when there is no around.
    """

    __slots__ = ("afters", "call", "checked", "checks", "names", "parts", "steps")

    def __init__(self, steps: Iterable[Step], handler: Handler) -> None:
        self.steps = tuple(steps)
        checks: list[Check] = []
        checked: list[str] = []
        afters: list[tuple[After, ...]] = []
        outer: list[After] = []
        arounds: list[Around] = []
        for step in map(_driveable, self.steps):
            if (check := getattr(step, "check", None)) is not None:
                checks.append(check)
                checked.append(step.name)
                afters.append(tuple(reversed(outer)))
            if (after := getattr(step, "after", None)) is not None:
                outer.append(after)
            if (around := getattr(step, "around", None)) is not None:
                arounds.append(around)
        afters.append(tuple(reversed(outer)))
        self.checks = tuple(checks)
        self.checked = tuple(checked)
        self.afters = tuple(afters)
        self.names = tuple(step.name for step in self.steps)
        self.call = _nest(arounds, handler)
        self.parts = tuple(part for step in self.steps for part in (*getattr(step, "parts", ()), step))


def _driveable(step: Step) -> Any:
    """The step itself, or, when it says ``direct = False``, one whose coroutines run in tasks (see ``blocks.core.pending``)."""
    return step if getattr(step, "direct", True) else _InTasks(step)


class _InTasks:
    """A step that needs a current task (``asyncio.timeout``, ``TaskGroup``) before it first waits."""

    def __init__(self, step: Any) -> None:
        self.name: str = step.name
        for method in ("check", "after", "around"):
            if callable(given := getattr(step, method, None)):
                setattr(self, method, _in_task(given))


def _in_task(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        answer = method(*arguments)
        return asyncio.get_running_loop().create_task(answer) if asyncio.iscoroutine(answer) else answer

    return call


def _nest(
    arounds: list[Around], handler: Handler
) -> Callable[[Request, Context], Coroutine[Any, Any, Response]] | None:
    """The arounds about the handler, or None when there are none and the gateway calls the handler itself."""
    if not arounds:
        return None

    def service(request: Request, context: Context) -> Coroutine[Any, Any, Response]:
        return handler(request)

    call: Callable[[Request, Context], Coroutine[Any, Any, Response]] = service
    for around in reversed(arounds):
        call = _wrap(around, call)
    return call


def _wrap(
    around: Around, inner: Callable[[Request, Context], Coroutine[Any, Any, Response]]
) -> Callable[[Request, Context], Coroutine[Any, Any, Response]]:
    def call(request: Request, context: Context) -> Coroutine[Any, Any, Response]:
        return around(request, context, lambda passed: inner(passed, context))

    return call


def is_step(value: object) -> bool:
    """Whether ``value`` is a step already, and not the settings of one."""
    return any(callable(getattr(value, method, None)) for method in ("check", "after", "around"))


def build_steps(options: Mapping[str, Any], site: Site) -> list[Step]:
    """The steps that a route's options ask for, in the order of ``FEATURES``. Raises ``ConfigErrors`` with everything that is wrong."""
    steps: list[Step] = []
    complaints: list[Complaint] = []
    for feature in _wanted(tuple([word for word, value in options.items() if value is not None])):
        if feature.keys:
            value: Any = {word: options[word] for word in feature.keywords if options.get(word) is not None}
        else:
            value = options[feature.key]
        try:
            step = _build(feature, value, site)
        except ConfigError as error:
            complaints += complaints_of(error, () if len(feature.keys) > 1 else (feature.keywords[0],))
            continue
        if step is not None:
            steps.append(step)
    if complaints:
        raise ConfigErrors(list(dict.fromkeys(complaints)))
    return steps


@lru_cache(1024)
def _wanted(words: tuple[str, ...]) -> tuple[Feature, ...]:
    """The features of these keywords, in order."""
    return tuple(FEATURES[place] for place in sorted({place for word in words for place in _PLACES.get(word, ())}))


def _build(feature: Feature, value: Any, site: Site) -> Step | None:
    """The step for settings. A thousand routes that say the same are read and checked once.

    A step may be made anew for another route when it says how (``fresh``: with counters of its own), when its settings are plain
    values, and when its making did not look at the route.
    """
    plain = type(value) is str or _is_plain(value)
    key = (
        None if not plain else (feature.home, value) if type(value) is str else (feature.home, type(value), repr(value))
    )
    if key in site.prototypes:
        known = site.prototypes[key]
        return None if known is None else cast(Step, known.fresh())
    if not plain and is_step(value):
        return cast(Step, value)
    home = _home(feature.home)
    site.asked_route = False
    step: Step | None = tell_all(lambda given: home.step(site.settings(home, given), site), value)
    if key is not None and not site.asked_route and (step is None or hasattr(step, "fresh")):
        site.prototypes[key] = step
    return step


_home: Callable[[str], Any] = lru_cache(None)(import_module)
_PLAIN = frozenset((str, int, float, bool))


def _is_plain(value: Any) -> bool:
    """Whether a value is all that it seems: what a file can hold, not an object."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is list:
        return all(type(item) is str or _is_plain(item) for item in value)
    return kind is dict and all(_is_plain(item) for item in value.values())
