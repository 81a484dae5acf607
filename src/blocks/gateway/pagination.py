"""A service that pages by offset can be asked by cursor, and one that pages by cursor can be asked by offset.

A cursor is opaque, tied to the query it came from, and sealed (HMAC), so that clients cannot make one up. Links are those of RFC 8288.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import size
from blocks.http.body import TooLarge
from blocks.http.message import Request, Response

from .auth import base64url
from .context import Context
from .ownership import owner_of
from .problem import problem
from .steps import Proceed
from .transform.shape import place
from .transform.template import dig
from .validate.body import BadBody, decode, is_json
from .validate.parameters import pairs

if TYPE_CHECKING:
    from .site import Site

LIMIT, MAX_LIMIT = 20, 100  # items of a page: without a limit, and at most; GitHub's 30 and 100, Stripe's 10 and 100
MAX_PAGES = 50  # pages that are walked for one request with an offset
MAX_OFFSET = 1_000_000
REMEMBERED = 10_000  # cursors by place
_SEAL = 8  # bytes
_PLAINLY = (
    b"accept-encoding",
    b"range",
    b"if-range",
    b"if-none-match",
    b"if-modified-since",
)  # a page is taken whole and uncoded


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``offer``: ``cursor`` (the service has limit and offset) or ``offset`` (it has cursors). ``items``: where the list is in its answer.

    ``service_limit``, ``service_offset``, ``service_cursor``: the service's parameters; ``service_next``: where it puts the next cursor.
    ``next``: where the client finds the next cursor or offset. ``secret`` seals cursors (several gateways need the same).
    """

    offer: Literal["cursor", "offset"]
    items: str = "items"
    next: str = "next"
    limit: int = LIMIT
    max_limit: int = MAX_LIMIT
    service_limit: str = "limit"
    service_offset: str = "offset"
    service_cursor: str = "cursor"
    service_next: str = "next"
    secret: str = ""
    max_answer: Size = "1MiB"


class Pagination:
    """The step that pages."""

    name = "pagination"

    def __init__(self, settings: Settings) -> None:
        if settings.offer not in ("cursor", "offset"):
            raise ConfigError(f"offer is {settings.offer!r}; it can be cursor or offset")
        with below("limit"):
            if not 1 <= settings.limit <= settings.max_limit <= 10_000:
                raise ConfigError("limit is from 1 to max_limit, and that at most 10,000")
        with below("secret"):
            if settings.secret and len(settings.secret) < 16:
                raise ConfigError("the secret that seals cursors has 16 characters at least")
        self._set = settings
        self._key = settings.secret.encode()[:64] if settings.secret else secrets.token_bytes(32)
        self._max = size(settings.max_answer)
        self.sealed_for_all = bool(settings.secret) or settings.offer != "cursor"
        self._places: OrderedDict[tuple[bytes, int], str] = OrderedDict()

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """The page that was asked for, with the way to the next one; 400 for a bad limit, offset or cursor."""
        if request.method not in ("GET", "HEAD"):
            return await proceed(request)
        asked = pairs(request.query)
        try:
            limit = _number(asked, "limit", self._set.limit, 1, self._set.max_limit)
            rest = _without(
                request.query,
                {
                    "limit",
                    "offset",
                    "cursor",
                    self._set.service_limit,
                    self._set.service_offset,
                    self._set.service_cursor,
                },
            )
            if self._set.offer == "cursor":
                return await self._by_cursor(request, context, proceed, asked, limit, rest)
            offset = _number(asked, "offset", 0, 0, MAX_OFFSET)
            return await self._by_offset(request, context, proceed, offset, limit, rest)
        except ValueError as error:
            return problem(400, "Bad Request", str(error))

    # -- cursors over a service with offsets

    async def _by_cursor(
        self, request: Request, context: Context, proceed: Proceed, asked: dict[str, list[str]], limit: int, rest: str
    ) -> Response:
        given = asked.get("cursor", [])
        if len(given) > 1:
            raise ValueError("cursor is given twice")
        scope = _scope(request.path, rest, context)
        offset = self._open(given[0], scope) if given else 0
        query = f"{self._set.service_limit}={limit + 1}&{self._set.service_offset}={offset}"  # one more tells whether there is a next page
        response, value = await self._page(request, proceed, rest, query)
        if value is None:
            return response
        items = dig(value, self._set.items) if self._set.items else value
        if not isinstance(items, list):
            return _unlike()
        more = len(items) > limit
        del items[limit:]
        cursor = self._seal(offset + limit, scope) if more else None
        return self._told(request, response, value, cursor, f"cursor={cursor}" if more else "", limit, rest)

    def _seal(self, offset: int, scope: bytes) -> str:
        plain = offset.to_bytes(5, "big")
        return base64url.encode(plain + blake2b(plain + scope, key=self._key, digest_size=_SEAL).digest())

    def _open(self, cursor: str, scope: bytes) -> int:
        try:
            data = base64url.decode(cursor)
        except ValueError:
            data = b""
        plain, seal = data[:5], data[5:]
        if len(data) != 5 + _SEAL or not secrets.compare_digest(
            blake2b(plain + scope, key=self._key, digest_size=_SEAL).digest(), seal
        ):
            raise ValueError("the cursor is not one of this listing's")
        return int.from_bytes(plain, "big")

    # -- offsets over a service with cursors

    async def _by_offset(
        self, request: Request, context: Context, proceed: Proceed, offset: int, limit: int, rest: str
    ) -> Response:
        scope = _scope(request.path, rest, context)
        at, cursor = self._nearest(scope, offset)
        taken: list[Any] = []
        for _ in range(MAX_PAGES):
            query = f"{self._set.service_limit}={self._set.max_limit}" + (
                f"&{self._set.service_cursor}={_quoted(cursor)}" if cursor else ""
            )
            response, value = await self._page(request, proceed, rest, query)
            if value is None:
                return response
            items = dig(value, self._set.items) if self._set.items else value
            following = dig(value, self._set.service_next) if isinstance(value, dict) else None
            if not isinstance(items, list):
                return _unlike()
            taken.extend(items[max(0, offset - at) :])
            at += len(items)
            if not isinstance(following, str | int) or following == "" or not items:
                more = len(taken) > limit
                break
            cursor = str(following)
            self._remember(scope, at, cursor)
            if len(taken) > limit:
                more = True
                break
        else:
            raise ValueError(
                f"the offset {offset} is too far in: this listing can be walked {MAX_PAGES} pages from a known place"
            )
        items[:] = taken[:limit]
        following_offset = offset + limit if more else None
        return self._told(
            request, response, value, following_offset, f"offset={offset + limit}" if more else "", limit, rest
        )

    def _nearest(self, scope: bytes, offset: int) -> tuple[int, str]:
        """The last known place at or before ``offset``."""
        step = self._set.max_limit
        for at in range(offset - offset % step, 0, -step):
            cursor = self._places.get((scope, at))
            if cursor is not None:
                self._places.move_to_end((scope, at))
                return at, cursor
        return 0, ""

    def _remember(self, scope: bytes, at: int, cursor: str) -> None:
        self._places[(scope, at)] = cursor
        if len(self._places) > REMEMBERED:
            self._places.popitem(last=False)

    # -- both

    async def _page(self, request: Request, proceed: Proceed, rest: str, query: str) -> tuple[Response, Any]:
        """The service's answer, and its value when it is a page; what is no page passes as it is."""
        asked = request.copy()
        asked.method = "GET"
        asked.target = f"{request.path}?{rest}&{query}" if rest else f"{request.path}?{query}"
        asked.headers.replace(_PLAINLY, ())
        response = await proceed(asked)
        if (
            response.status != 200
            or not is_json(response.headers)
            or b"content-encoding" in response.headers.section.index
        ):
            return response, None
        try:
            return response, decode(await response.read(self._max))
        except (BadBody, TooLarge):  # too large is the service's fault here
            return _unlike(), None

    def _told(
        self, request: Request, response: Response, value: Any, following: Any, link: str, limit: int, rest: str
    ) -> Response:
        if isinstance(value, dict):
            if self._set.offer == "offset" and self._set.service_next != self._set.next:
                value.pop(self._set.service_next, None)
            value = place(value, tuple(self._set.next.split(".")), following)
        response.body = msgspec.json.encode(value)
        drop = (b"content-length", b"etag", b"content-digest", b"repr-digest", b"link")
        rest = rest.replace("<", "%3C").replace(">", "%3E")
        target = f"{request.path}?{rest}&" if rest else f"{request.path}?"
        response.headers.replace(
            drop, ((b"link", f'<{target}{link}&limit={limit}>; rel="next"'.encode()),) if link else ()
        )
        return response


def _unlike() -> Response:
    return problem(502, "Bad Gateway", "the service's answer is not a page", reason="bad-page")


def _scope(path: str, rest: str, context: Context) -> bytes:
    """What a cursor belongs to: path, query and consumer."""
    return blake2b("\0".join((path, rest, owner_of(context.consumer))).encode(), digest_size=16).digest()


def _number(asked: dict[str, list[str]], name: str, default: int, least: int, most: int) -> int:
    given = asked.get(name)
    if given is None:
        return default
    text = given[0]
    if len(given) > 1 or not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text):
        raise ValueError(f"{name} is a number from {least} to {most}")
    if name == "limit":
        return min(int(text), most)
    if int(text) > most:
        raise ValueError(f"{name} is a number from {least} to {most}")
    return int(text)


def _without(query: str, names: set[str]) -> str:
    return "&".join(pair for pair in query.split("&") if pair and next(iter(pairs(pair)), "") not in names)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def step(settings: Any, site: Site) -> Pagination:
    """The step of a route's ``pagination``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError('pagination is a table with offer = "cursor" or "offset"')
    if settings.secret:
        return Pagination(settings)
    return site.kept(("pagination", site.route.name, repr(settings)), lambda: Pagination(settings))
