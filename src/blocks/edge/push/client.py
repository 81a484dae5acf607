"""The pushing side: sends what each edge lacks, and switches all of them or none."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any

import aiohttp

from blocks.core.errors import BlocksError, ConfigError

from . import manifest as manifests
from .scan import Scanned

PIECE = 512 * 1024  # bytes of one request; below what an edge of several workers passes on (1 MiB)
AT_ONCE = 4  # objects on their way to one edge
PATIENCE = aiohttp.ClientTimeout(total=120, sock_connect=10)
TRIES = 4  # of one request that got no answer; the pauses between are 0.25, 0.5 and 1 s
RETRIED = frozenset((502, 503, 504))


class PointFailed(BlocksError):
    """One edge did not do what it was asked; ``status`` is its answer's, 0 when there was none."""

    def __init__(self, url: str, message: str, status: int = 0, at: int | None = None) -> None:
        super().__init__(f"{url}: {message}")
        self.url = url
        self.status = status
        self.at = at


class NotSwitched(BlocksError):
    """An activation failed; the message names the edges that failed and says what the others serve."""


class Point:
    """The admin API of one edge."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._session = session

    async def ask(self, method: str, path: str, *, tries: int = TRIES, **more: Any) -> list[dict[str, Any]]:
        """The answer of each worker. Raises ``PointFailed``; what got no answer is asked again, as everything here may be."""
        for attempt in range(1, tries + 1):
            try:
                return await self._once(method, path, more)
            except PointFailed as error:
                if attempt == tries or not (error.status == 0 or error.status in RETRIED):
                    raise
                await asyncio.sleep(0.125 * 2**attempt)
        raise AssertionError("unreachable")

    async def _once(self, method: str, path: str, more: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            async with self._session.request(method, self.url + path, allow_redirects=False, **more) as answer:
                body = await answer.json(content_type=None)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PointFailed(self.url, f"no answer ({error or type(error).__name__})") from error
        bodies = (
            [worker["body"] for worker in body["workers"]] if isinstance(body, dict) and "workers" in body else [body]
        )
        if status >= 400:
            wrong = next((b for b in bodies if isinstance(b, dict) and "error" in b), {})
            raise PointFailed(self.url, wrong.get("error", f"answered {status}"), status, wrong.get("at"))
        return [b for b in bodies if isinstance(b, dict)]


class Fleet:
    """Every edge that a release goes to. An async context manager; ``token`` is the admin API's."""

    def __init__(self, urls: Sequence[str], token: str | None = None) -> None:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"{url!r} is not the URL of an edge's admin API; write it like http://127.0.0.1:9000")
        if len(set(urls)) != len(urls) or not urls:
            raise ConfigError("name each edge once, and at least one")
        self._urls = urls
        self._token = token
        self.points: list[Point] = []

    async def __aenter__(self) -> Fleet:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._session = aiohttp.ClientSession(headers=headers, timeout=PATIENCE)
        self.points = [Point(url, self._session) for url in self._urls]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    # -- sending

    async def stage(self, scanned: Scanned) -> list[dict[str, int]]:
        """Send the manifest to every edge; what each lacks: offset by object."""
        data = manifests.encode(scanned.manifest)
        return await self._all(lambda point: _stage(point, data))

    async def send(
        self, scanned: Scanned, missing: Sequence[dict[str, int]], progress: Callable[[int], None] = lambda size: None
    ) -> None:
        """Send to every edge what it lacks; ``progress`` is told bytes as they arrive. Raises ``PointFailed``."""
        sizes = scanned.manifest.objects

        async def one(point: Point, lacks: dict[str, int]) -> None:
            gate = asyncio.Semaphore(AT_ONCE)

            async def object(name: str, offset: int) -> None:
                async with gate:
                    await _send(point, name, scanned.places[name], sizes[name], offset, progress)

            async with asyncio.TaskGroup() as group:
                for name, offset in lacks.items():
                    group.create_task(object(name, offset))

        results = await asyncio.gather(*map(one, self.points, missing), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseExceptionGroup):
                raise result.exceptions[0]
            if isinstance(result, BaseException):
                raise result

    # -- switching

    async def activate(self, site: str, release: str) -> str:
        """Switch every edge to ``release``, or none; returns the transaction. Raises ``NotSwitched``."""
        transaction = secrets.token_hex(16)
        body = {"site": site, "release": release, "transaction": transaction}
        failed = await self._phase("prepare", body)
        if failed:
            await self._phase("revert", body, tries=1)
            raise NotSwitched(f"nothing was switched: {_told(failed)}")
        failed = await self._phase("commit", body)
        if failed:
            stuck = await self._phase("revert", body)
            rest = "every edge serves what it served before"
            if stuck:
                rest = f"put back everywhere but on {', '.join(error.url for error in stuck)}: look there, and activate again"
            raise NotSwitched(f"not switched: {_told(failed)}; {rest}")
        return transaction

    async def rollback(self, site: str, release: str | None = None) -> str:
        """Switch every edge to the release that was active before (or ``release``); returns it. Raises ``NotSwitched``."""
        if release is None:
            listings = await self.releases()
            before = {listing["sites"].get(site, {}).get("previous", "") for listing in listings}
            if len(before) != 1 or before == {""}:
                known = ", ".join(sorted(b or "none" for b in before))
                raise NotSwitched(
                    f"site {site} has no one release to go back to on all edges (there: {known}); name it with --release"
                )
            release = before.pop()
        await self.activate(site, release)
        return release

    async def releases(self) -> list[dict[str, Any]]:
        """What each edge has."""
        return [answers[0] for answers in await self._all(lambda point: point.ask("GET", "/v1/push/releases"))]

    async def gc(self, keep: int) -> list[dict[str, Any]]:
        """Let each edge drop what is old; what it dropped."""
        return [
            answers[0]
            for answers in await self._all(lambda point: point.ask("POST", "/v1/push/gc", json={"keep": keep}))
        ]

    async def each(self, method: str, path: str, **more: Any) -> list[list[dict[str, Any]]]:
        """The answers of every edge's workers to one request. Raises ``PointFailed``, when all have answered."""
        results = await asyncio.gather(
            *(point.ask(method, path, **more) for point in self.points), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, list)]

    async def _phase(self, name: str, body: dict[str, str], tries: int = TRIES) -> list[PointFailed]:
        calls = [point.ask("POST", f"/v1/push/{name}", json=body, tries=tries) for point in self.points]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PointFailed):
                raise result
        return [result for result in results if isinstance(result, PointFailed)]

    async def _all(self, call: Callable[[Point], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(call(point) for point in self.points)))


async def _stage(point: Point, data: bytes) -> dict[str, int]:
    name, at = sha256(data).hexdigest(), 0
    answers: list[dict[str, Any]] = []
    while at < len(data):
        piece = data[at : at + PIECE]
        query = {"offset": str(at), "size": str(len(data))}
        try:
            answers = await point.ask(
                "PUT", f"/v1/push/manifests/{name}", data=piece, params=query, headers=_digest(piece)
            )
        except PointFailed as error:
            if error.at is None or error.at == at:
                raise
            at = error.at
            continue
        at += len(piece)
    missing: dict[str, int] = {}
    for answer in answers:
        for object, offset in answer.get("missing", {}).items():
            missing[object] = min(offset, missing.get(object, offset))
    return missing


async def _send(point: Point, name: str, place: str, size: int, offset: int, progress: Callable[[int], None]) -> None:
    restarts = 0
    with open(place, "rb") as file:  # noqa: ASYNC230  # reads of at most PIECE bytes, in a tool that serves nobody
        while True:
            file.seek(offset)
            piece = file.read(min(PIECE, size - offset))
            if not piece and size:
                raise PointFailed(point.url, f"{place} changed while it was pushed; push again")
            try:
                answers = await point.ask(
                    "PUT",
                    f"/v1/push/objects/{name}",
                    data=piece,
                    params={"offset": str(offset)},
                    headers=_digest(piece),
                )
            except PointFailed as error:
                if error.at is None or restarts == 3:
                    raise
                restarts += 1
                offset = error.at
                continue
            progress(len(piece))
            offset += len(piece)
            if all(answer.get("complete") for answer in answers):
                return


def _digest(piece: bytes) -> dict[str, str]:
    digest = b64encode(sha256(piece).digest()).decode()
    return {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/octet-stream"}


def _told(failed: Sequence[PointFailed]) -> str:
    return "; ".join(str(error) for error in failed)
