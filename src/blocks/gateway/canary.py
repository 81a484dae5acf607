"""A new service gets a share of a route's requests, or those that ask for it; who got it once gets it again.

The choice is made by a hash of who asks, so that several gateways choose alike, and a growing share only ever adds consumers.
"""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler, bind
from blocks.http.message import Request, Response, field_name

from .context import Context
from .ownership import owner_of
from .steps import Proceed

if TYPE_CHECKING:
    from .site import Site


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``service`` gets a ``share`` (0 to 1), and whoever sends ``header`` with ``value`` (``opt_out``: who is kept away by it).

    ``groups``: consumers who always get it. ``sticky``: by ``consumer`` (else the address), ``client``, or ``none`` (by chance).
    """

    service: Any
    share: float = 0.0
    header: str = ""
    value: str = "always"
    opt_out: str = "never"
    groups: list[str] = []
    sticky: Literal["consumer", "client", "none"] = "consumer"
    seed: str = ""


class Canary:
    """The step that chooses. ``context.notes["canary"]`` is "new" or "old", for the log and for comparing the two."""

    name = "canary"

    def __init__(self, service: Handler, settings: Settings, random: Random, seed: str = "") -> None:
        with below("share"):
            if not 0 <= settings.share <= 1:
                raise ConfigError(f"share is {settings.share!r}; it is a number from 0 to 1")
        if settings.sticky not in ("consumer", "client", "none"):
            raise ConfigError(f"sticky is {settings.sticky!r}; it can be consumer, client or none")
        self.parts = (service,)
        self._service = bind(service)
        self._share = settings.share
        self._header = field_name(settings.header) if settings.header else b""
        self._value, self._opt_out = settings.value.encode(), settings.opt_out.encode()
        self._groups = frozenset(settings.groups)
        self._sticky = settings.sticky
        self._seed = (settings.seed or seed).encode()[:64]
        self._random = random
        self.new = self.old = 0

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """The answer of the chosen service."""
        if self.chooses(request, context):
            self.new += 1
            context.notes["canary"] = "new"
            return await self._service(request)
        self.old += 1
        context.notes["canary"] = "old"
        return await proceed(request)

    def chooses(self, request: Request, context: Context) -> bool:
        """Whether the new service gets the request: by its header, its consumer's group, then the share."""
        if self._header:
            asked = request.headers.find(self._header)
            if asked is not None and asked in (self._value, self._opt_out):
                return asked == self._value
        consumer = context.consumer
        if consumer is not None and not self._groups.isdisjoint(consumer.groups):
            return True
        if self._sticky == "none":
            return self._random.random() < self._share
        who = owner_of(consumer) if consumer is not None and self._sticky == "consumer" else context.client
        point = int.from_bytes(blake2b(who.encode(), key=self._seed, digest_size=7).digest(), "big")
        return point < self._share * (1 << 56)

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"new": self.new, "old": self.old}


def step(settings: Any, site: Site) -> Canary:
    """The step of a route's ``canary``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError("canary is a table with service, and share or header")
    with below("service"):
        service = site.service(settings.service) if isinstance(settings.service, str) else settings.service
    return Canary(service, settings, site.random, site.route.name)
