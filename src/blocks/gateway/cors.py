"""A page of another origin may use a route just as far as the route says; preflights are answered here and never reach a service.

Source: the Fetch standard, §3.2 (the CORS protocol). What a service says itself in such fields is replaced: two policies are none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds
from blocks.http.message import Headers, Pair, Request, Response, Section, field_name

from .context import Context
from .problem import problem

if TYPE_CHECKING:
    from .site import Site

SHORTHAND = (str, list)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\*\.)?[a-z0-9.-]+|[a-z][a-z0-9+.-]*://\[[0-9a-f:]+\]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_OURS = frozenset(
    {
        b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers",
        b"access-control-allow-methods", b"access-control-allow-headers", b"access-control-max-age",
    }
)  # fmt: skip
_ASKED = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_SAFELISTED = frozenset({"accept", "accept-language", "content-language", "content-type", "range"})  # Fetch §2.2.2
MAX_ASKED = 64  # header names of one preflight that are looked at


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which ``origins`` (``https://a.example``, ``https://*.a.example``, ``null``, ``*``) may use the route, and how.

    ``methods``: default those of the route, or GET, HEAD and POST; ``headers``: request fields beyond the safelisted; ``expose``: response
    fields that scripts may read; ``credentials``: cookies and TLS certificates go along; ``max_age``: how long a preflight holds.
    """

    origins: list[str]
    methods: list[str] = []
    headers: list[str] = []
    expose: list[str] = []
    credentials: bool = False
    max_age: Duration = "10m"
    private_network: bool = False


class Cors:
    """The step that answers preflights and tells on every answer whether the page may read it."""

    name = "cors"

    def __init__(self, settings: Settings, methods: frozenset[str] | None = None) -> None:
        _refuse_contradictions(settings)
        self._any = "*" in settings.origins
        with below("origins"):
            self._exact = frozenset(_canonical(text).encode() for text in settings.origins if "*" not in text)
            wild = [text for text in settings.origins if "*" in text and text != "*"]
            self._suffixes = tuple(_suffix(_canonical(text)) for text in wild)
        named = settings.methods or sorted(methods or ()) or ["GET", "HEAD", "POST"]
        self._any_method = "*" in named
        self._methods = frozenset(named)
        self._any_header = "*" in settings.headers
        self._headers = frozenset(name.lower() for name in settings.headers) | _SAFELISTED
        self._credentials = settings.credentials
        self._private = settings.private_network
        self._granted = self._grant(named, settings)
        self._told: list[Pair] = [(b"access-control-allow-credentials", b"true")] if settings.credentials else []
        if settings.expose:
            self._told.append((b"access-control-expose-headers", ", ".join(settings.expose).encode()))
        self.refused = 0

    def _grant(self, methods: list[str], settings: Settings) -> list[Pair]:
        """The fields of a granted preflight that are always the same."""
        pairs: list[Pair] = [(b"access-control-allow-methods", ", ".join(methods).encode())]
        if settings.credentials:
            pairs.append((b"access-control-allow-credentials", b"true"))
        pairs.append((b"access-control-max-age", str(int(seconds(settings.max_age))).encode()))
        return pairs

    def check(self, request: Request, context: Context) -> Response | None:
        """The answer to a preflight; None for everything else."""
        if request.method != "OPTIONS":
            return None
        index = request.headers.section.index
        if b"origin" not in index or b"access-control-request-method" not in index:
            return None
        return self._preflight(request)

    def after(self, request: Request, response: Response, context: Context) -> Response:
        """The answer with the fields that let the page read it, or without any."""
        origin = request.headers.find(b"origin")
        headers = response.headers
        drop = _OURS
        add: list[Pair] = []
        if not (self._any and not self._credentials):
            vary = headers.find(b"vary")
            if vary is None:
                add.append((b"vary", b"Origin"))
            elif b"*" not in vary and b"origin" not in [word.strip().lower() for word in vary.split(b",")]:
                drop = _OURS | {b"vary"}
                add.append((b"vary", vary + b", Origin"))
        if origin is not None and self.allows(origin):
            add.append((b"access-control-allow-origin", self._allowed(origin)))
            add.extend(self._told)
        if add or not drop.isdisjoint(headers.section.index):
            headers.replace(drop, add)
        return response

    def allows(self, origin: bytes) -> bool:
        """Whether pages of ``origin`` may use the route; an origin is compared byte by byte (Fetch §3.2.4)."""
        if self._any or origin in self._exact:
            return True
        return any(
            origin.startswith(start) and origin.endswith(end) and _is_label(origin[len(start) : -len(end)])
            for start, end in self._suffixes
        )

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"refused_preflights": self.refused}

    def _allowed(self, origin: bytes) -> bytes:
        return b"*" if self._any and not self._credentials else origin

    def _preflight(self, request: Request) -> Response:
        headers = request.headers
        origin = headers.find(b"origin") or b""
        method = (headers.find(b"access-control-request-method") or b"").decode("latin-1")
        asked = headers.find(b"access-control-request-headers")
        names = [name.strip().lower() for name in asked.decode("latin-1").split(",")] if asked else []
        missing = self._missing(origin, method, names)
        if missing:
            self.refused += 1
            return problem(403, "Forbidden", missing, headers=((b"vary", _ASKED),), reason="cors")
        pairs: list[Pair] = [(b"access-control-allow-origin", self._allowed(origin)), *self._granted, (b"vary", _ASKED)]
        if names:
            pairs.append((b"access-control-allow-headers", ", ".join(names).encode("latin-1")))
        if self._private and headers.find(b"access-control-request-private-network") == b"true":
            pairs.append((b"access-control-allow-private-network", b"true"))
        return Response(204, Headers.of(Section(pairs)))

    def _missing(self, origin: bytes, method: str, names: list[str]) -> str:
        """Why a preflight is not granted; "" when it is."""
        if not self.allows(origin):
            return "this origin may not use the route"
        if not (self._any_method and _TOKEN.match(method)) and method not in self._methods:
            return f"the method {method[:40]!r} may not be used across origins"
        if len(names) > MAX_ASKED or not all(_TOKEN.match(name) for name in names):
            return "the names of Access-Control-Request-Headers are too many or malformed"
        for name in names:
            if name not in self._headers and (not self._any_header or name == "authorization"):
                return f"the field {name[:40]!r} may not be sent across origins"
        return ""


def _is_label(middle: bytes) -> bool:
    """Whether the part under ``*.`` is host labels: no port, user or path slips in."""
    return bool(re.fullmatch(rb"[a-z0-9-]+(\.[a-z0-9-]+)*", middle))


def _canonical(text: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port (RFC 6454 §6.2). Raises ``ConfigError``."""
    if text == "null":
        return text
    lower = text.lower()
    bare, _, port = lower.rpartition(":") if re.search(r":\d+\Z", lower) else (lower, "", "")
    if not _ORIGIN.fullmatch(bare):
        raise ConfigError(f"{text!r} is not an origin; write it like https://app.example.com, without a path")
    own = _DEFAULT_PORTS.get(bare.partition(":")[0])
    return bare if not port or f":{port}" == own else f"{bare}:{port}"


def _suffix(text: str) -> tuple[bytes, bytes]:
    start, _, end = text.partition("*")
    return start.encode(), end.encode()


def _refuse_contradictions(settings: Settings) -> None:
    if not settings.origins:
        raise ConfigError("origins is empty: nobody could use the route across origins; leave cors out instead")
    for name in ("origins", "methods", "headers", "expose"):
        with below(name):
            if settings.credentials and "*" in getattr(settings, name):
                raise ConfigError(f'{name} = ["*"] with credentials is refused by browsers (Fetch §3.2.5); list them')
    for key in ("headers", "expose"):
        for place, name in enumerate(getattr(settings, key)):
            try:
                field_name(name)
            except ValueError as error:
                with below(key, place):
                    raise ConfigError(str(error)) from None
    for place, method in enumerate(settings.methods):
        with below("methods", place):
            if not _TOKEN.match(method):
                raise ConfigError(f"{method!r} is not a method")


def step(settings: Any, site: Site) -> Cors:
    """The step of a route's ``cors``: a table, an origin, or a list of origins. Raises ``ConfigError``."""
    if isinstance(settings, str):
        settings = Settings(origins=[settings])
    elif isinstance(settings, list | tuple):
        settings = Settings(origins=list(settings))
    if not isinstance(settings, Settings):
        raise ConfigError("cors is an origin, a list of origins, or a table")
    return Cors(settings, site.route.methods)
