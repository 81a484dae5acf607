"""A route believes any of its authenticators; whoever shows a bad credential is refused, and is never taken for nobody."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from blocks.core.errors import ConfigError
from blocks.gateway.consumer import Consumer
from blocks.gateway.context import Context
from blocks.gateway.problem import problem
from blocks.http.message import Request, Response

from .outcome import Authenticator, Outcome, Refusal, refuse

if TYPE_CHECKING:
    from blocks.gateway.site import Site

ANONYMOUS = "anonymous"  # nobody is asked who they are
DENY = "deny"  # nobody gets through


class Deny:
    """The step of a route that is closed: 403 for everybody."""

    name = "auth"
    reason = "the route is closed: 403 for everybody"  # for explain

    def check(self, request: Request, context: Context) -> Response:
        """Always a refusal."""
        return problem(403, "Forbidden", "this route is closed", reason="deny")


class Authenticate:
    """The step that asks each authenticator in turn; the first consumer is the request's. ``anonymous``: having none is fine."""

    name = "auth"

    def __init__(self, authenticators: tuple[Authenticator, ...], *, anonymous: bool = False) -> None:
        self.authenticators = authenticators
        self.anonymous = anonymous
        self.parts = authenticators
        self._challenges = tuple(dict.fromkeys(one.challenge for one in authenticators if one.challenge))
        self.missing = 0

    def fresh(self) -> Authenticate:
        """The same step for another route."""
        twin = Authenticate.__new__(Authenticate)
        twin.__dict__.update(self.__dict__)
        twin.missing = 0
        return twin

    def check(self, request: Request, context: Context) -> Response | Awaitable[Response | None] | None:
        """None once ``context.consumer`` is set (or may be missing); else the refusal."""
        refusal: Refusal | None = None
        for place, authenticator in enumerate(self.authenticators):
            outcome = authenticator.identify(request, context)
            if outcome is None:
                continue
            if type(outcome) is Consumer:
                context.consumer = outcome
                return None
            if isinstance(outcome, Refusal):
                refusal = refusal or outcome
            else:
                return self._on(request, context, place, cast("Awaitable[Outcome]", outcome), refusal)
        return self._end(refusal, context)

    async def _on(
        self, request: Request, context: Context, place: int, waiting: Awaitable[Outcome], refusal: Refusal | None
    ) -> Response | None:
        """Waits for one authenticator's answer, then asks the others."""
        outcome = await waiting
        for authenticator in (*self.authenticators[place + 1 :], None):
            if isinstance(outcome, Consumer):
                context.consumer = outcome
                return None
            refusal = refusal or outcome
            if authenticator is not None:
                found = authenticator.identify(request, context)
                outcome = found if found is None or isinstance(found, Consumer | Refusal) else await found
        return self._end(refusal, context)

    def _end(self, refusal: Refusal | None, context: Context) -> Response | None:
        if refusal is not None:
            context.notes["refused"] = refusal.reason
            return refuse(refusal, self._challenges)
        if self.anonymous:
            return None
        self.missing += 1
        return refuse(Refusal("credentials", "this route asks for credentials"), self._challenges)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics, those of the authenticators among them."""
        figures = {"refused_missing": self.missing}
        for authenticator in self.authenticators:
            for name, count in getattr(authenticator, "figures", dict)().items():
                figures[name] = figures.get(name, 0) + count
        return figures


def step(settings: Any, site: Site) -> Authenticate | Deny | None:
    """The step of a route's ``auth``: a name, an authenticator, a list of either; ``"anonymous"``, ``"deny"``. Raises ``ConfigError``."""
    listed = list(settings) if isinstance(settings, list | tuple) else [settings]
    if not listed:
        raise ConfigError('auth is empty; say "anonymous" to let everybody in')
    if DENY in listed:
        if len(listed) > 1:
            raise ConfigError('"deny" stands alone')
        return Deny()
    authenticators: list[Authenticator] = []
    for one in listed:
        if one == ANONYMOUS:
            continue
        found = site.named("auth", one) if isinstance(one, str) else one
        if not callable(getattr(found, "identify", None)):
            raise ConfigError(f"{one!r} is no authenticator: it has no identify()")
        authenticators.append(found)
    if not authenticators:
        return None
    return Authenticate(tuple(authenticators), anonymous=ANONYMOUS in listed)
