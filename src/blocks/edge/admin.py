"""What the edge adds to the admin API: purge, statistics, a look at an entry, and the receiving side of push.

Who may call is the admin API's affair (a bearer token off loopback, Host and Origin checked on it); what is called is checked here.
"""

from __future__ import annotations

import errno
import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from aiohttp import web

from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.http.admin import METRICS
from blocks.http.handler import Handler, walk

from .push.objects import Refused, check_object
from .push.releases import KEEP, NoRoom, Releases, Unknown
from .push.site import Conflict
from .readings import readings

if TYPE_CHECKING:
    from .edge import Edge

Answer = Callable[[web.Request], Awaitable[Any]]


def routes(app: web.Application, handler: Handler) -> None:
    """Add the edge's routes to the admin API."""
    from .edge import Edge

    edge = next(part for part in walk(handler) if isinstance(part, Edge))
    releases = next((part for part in walk(handler) if isinstance(part, Releases)), None)
    cache = _Cache(edge)
    app.router.add_post("/v1/edge/purge", _answering(cache.purge))
    app.router.add_get("/v1/edge/stats", _answering(cache.stats))
    app.router.add_get("/v1/edge/entry", _answering(cache.entry))
    push_routes(app, releases)
    metrics = app.get(METRICS)
    if metrics is not None:
        metrics.collect(lambda: readings(edge))


def push_routes(app: web.Application, releases: Releases | None) -> None:
    """Add the receiving side of push; without ``releases`` it says how to have one."""
    push = _Push(releases)
    app.router.add_put("/v1/push/manifests/{name}", _answering(push.manifest))
    app.router.add_put("/v1/push/objects/{name}", _answering(push.object))
    app.router.add_get("/v1/push/releases", _answering(push.releases))
    for phase in ("prepare", "commit", "revert"):
        app.router.add_post(f"/v1/push/{phase}", _answering(getattr(push, phase)))
    app.router.add_post("/v1/push/gc", _answering(push.gc))


def _answering(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route that answers in JSON, what went wrong too."""

    async def route(request: web.Request) -> web.Response:
        try:
            return web.json_response(await answer(request))
        except Refused as error:
            return web.json_response({"error": str(error), "at": error.at}, status=409)
        except Conflict as error:
            return web.json_response({"error": str(error)}, status=409)
        except Unknown as error:
            return web.json_response({"error": str(error)}, status=404)
        except NoRoom as error:
            return web.json_response({"error": str(error)}, status=507)
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=400)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return web.json_response({"error": f"the edge's disk: {error.strerror}"}, status=507 if full else 500)

    return route


class _Cache:
    """Purge and look."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def purge(self, request: web.Request) -> dict[str, Any]:
        """``{"url" | "prefix" | "host" | "tag": value, "soft": false}``; answered when the purge will survive a restart."""
        body = await _body(request)
        soft = body.pop("soft", False)
        kinds = {"url", "prefix", "host", "tag"}
        if len(body) != 1 or not kinds >= set(body) or not isinstance(soft, bool):
            raise ConfigError("a purge names one of url, prefix, host or tag, and may be soft")
        kind, value = next(iter(body.items()))
        if not isinstance(value, str) or not value or len(value) > 8192:
            raise ConfigError(f"{kind} must be a text of 1 to 8192 characters")
        count = self._edge.purge(**{kind: value}, soft=soft)
        sync = getattr(self._edge.store, "sync", None)
        if sync is not None:
            await sync()
        events().info("edge-purge", kind=kind, value=value[:200], soft=soft, purged=count)
        return {"purged": count, kind: value, "soft": soft}

    async def stats(self, request: web.Request) -> dict[str, Any]:
        """What ``Edge.stats`` says, and the second tier's numbers."""
        found = self._edge.stats()
        tier = getattr(self._edge.store, "stats", None)
        return found if tier is None or "store" in found else {**found, "store": tier()}

    async def entry(self, request: web.Request) -> dict[str, Any]:
        """What is stored for ``?url=``."""
        url = request.query.get("url", "")
        entry = self._edge.entry(url)
        if entry is None:
            raise Unknown(f"nothing is stored in memory for {url[:200]!r}")
        return {
            "key": entry.key,
            "status": entry.status,
            "fields": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in entry.section.pairs],
            "length": entry.length,
            "lifetime": entry.lifetime,
            "tags": list(entry.tags),
        }


class _Push:
    """The receiving side of ``blocks edge push``."""

    def __init__(self, releases: Releases | None) -> None:
        self._kept = releases

    @property
    def _releases(self) -> Releases:
        if self._kept is None:
            raise ConfigError("this edge keeps no releases: start it with --store DIR")
        return self._kept

    async def manifest(self, request: web.Request) -> dict[str, Any]:
        """A piece of a manifest; with the last one, what is missing."""
        name, piece = await _piece(request)
        return await self._releases.stage_piece(name, _number(request, "size"), _number(request, "offset"), piece)

    async def object(self, request: web.Request) -> dict[str, Any]:
        """A piece of an object."""
        name, piece = await _piece(request)
        return await self._releases.take(name, _number(request, "offset"), piece)

    async def releases(self, request: web.Request) -> dict[str, Any]:
        """Sites and their releases."""
        return await self._releases.status()

    async def prepare(self, request: web.Request) -> dict[str, Any]:
        """Reserve a site and load a release."""
        body = await _body(request)
        return await self._releases.prepare(_text(body, "site"), _text(body, "release"), _text(body, "transaction"))

    async def commit(self, request: web.Request) -> dict[str, Any]:
        """Switch."""
        body = await _body(request)
        return await self._releases.commit(_text(body, "site"), _text(body, "transaction"))

    async def revert(self, request: web.Request) -> dict[str, Any]:
        """Put back."""
        body = await _body(request)
        return await self._releases.revert(_text(body, "site"), _text(body, "transaction"))

    async def gc(self, request: web.Request) -> dict[str, Any]:
        """Drop what is old."""
        keep = (await _body(request)).get("keep", KEEP)
        if not isinstance(keep, int) or keep < 0:
            raise ConfigError("keep is how many releases to keep: 0 or more")
        return await self._releases.gc(keep)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise ConfigError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise ConfigError("the body is not a JSON object")
    return body


async def _piece(request: web.Request) -> tuple[str, bytes]:
    """The object's name and the bytes, compared with Content-Digest (RFC 9530) when that came. A coded body is refused: no bombs."""
    name = request.match_info["name"]
    check_object(name)
    if "Content-Encoding" in request.headers:
        raise ConfigError("pieces are sent as they are, without Content-Encoding")
    data = await request.read()
    field = request.headers.get("Content-Digest", "")
    if field.startswith("sha-256=:"):
        try:
            digest = b64decode(field[9:].partition(":")[0], validate=True)
        except ValueError:
            raise ConfigError("Content-Digest is malformed (RFC 9530)") from None
        if not hmac.compare_digest(digest, sha256(data).digest()):
            raise ConfigError("the bytes do not match their Content-Digest")
    return name, data


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ConfigError(f"{name} must be a number of bytes")
    return int(text)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text")
    return value
