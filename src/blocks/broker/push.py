"""A webhook is a group whose member posts each message to a URL: 2xx acks it, trouble delays it, refusal ends it.

What is tried in vain ``max_deliveries`` times, or refused (4xx other than 408, 409, 425 and 429), is a dead letter with
the reason. Deliveries are signed (``signature``) and carry the message's CloudEvents headers.
"""

from __future__ import annotations

import asyncio
import tomllib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from blocks.core.clock import SYSTEM, Clock
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.quantities import seconds

from .message import Message
from .signature import read_secret, sign

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

FIRST, CAP = 1.0, 600.0  # seconds between tries; Svix's schedule begins at 5 s and grows to hours
TIMEOUT = 10.0
CONCURRENCY = 16
MAX_DELIVERIES = 10
LAG = 30.0  # seconds a lease outlives the timeout of a try
_TRY_AGAIN = frozenset({408, 409, 425, 429})


class Source(Protocol):
    """Where messages come from: a ``Broker`` in this process, or a ``Client``."""

    def subscribe(self, pattern: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        """Messages of the topics that ``pattern`` matches."""
        ...


class Webhook:
    """Posts the messages of ``pattern`` to ``url``, as the group ``group``, while its context is open.

    ``secret`` signs; ``concurrency`` posts are under way at most; a try takes ``timeout`` seconds at most and the next one comes
    after a wait that grows from 1 s to 10 min, or after the ``Retry-After`` that the receiver asked for.
    """

    def __init__(
        self,
        source: Source,
        pattern: str,
        url: str,
        *,
        group: str,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float | str = TIMEOUT,
        max_deliveries: int = MAX_DELIVERIES,
        first: float | str = FIRST,
        cap: float | str = CAP,
        start: str | float = "latest",
        dead_letter: str | None = None,
        clock: Clock = SYSTEM,
        random: Random | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not a URL to post to: write https://HOST/PATH")
        if concurrency < 1:
            raise ConfigError("a webhook posts at least one message at a time")
        self._source = source
        self._pattern = pattern
        self._url = url
        self._secret = read_secret(secret) if secret is not None else None
        self._headers = headers or {}
        self._timeout = seconds(timeout)
        self._first, self._cap = seconds(first), seconds(cap)
        self._slots = asyncio.Semaphore(concurrency)
        self._options: dict[str, Any] = {
            "group": group,
            "start": start,
            "prefetch": concurrency * 2,
            "lease": self._timeout + LAG,
            "max_deliveries": max_deliveries,
            "dead_letter": dead_letter,
        }
        self._clock = clock
        self._random = random or Random()
        self._task: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self.delivered = 0
        self.failed = 0

    async def __aenter__(self) -> Webhook:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(ready), name=f"webhook {self._options['group']}")
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        if ended and kind is None:
            await task  # what ended it is not kept from whoever ran it

    async def _run(self, ready: asyncio.Future[None]) -> None:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=self._timeout)
        async with (
            aiohttp.ClientSession(timeout=limit, auto_decompress=False) as session,
            self._source.subscribe(self._pattern, **self._options) as messages,
        ):
            ready.set_result(None)
            try:
                async for message in messages:
                    await self._slots.acquire()
                    post = asyncio.create_task(self._post(session, message))
                    self._posts.add(post)
                    post.add_done_callback(self._posted)
            except Exception as error:
                events().error("broker-webhook-ended", url=self._url, error=str(error))
                raise
            finally:
                if self._posts:  # what is under way has its timeout, and is settled before the subscription ends
                    await asyncio.wait(self._posts, timeout=self._timeout)
                for post in list(self._posts):
                    post.cancel()

    def _posted(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        self._slots.release()
        if not post.cancelled() and (error := post.exception()) is not None:
            events().error("broker-webhook-failed", url=self._url, error=repr(error))

    async def _post(self, session: ClientSession, message: Message) -> None:
        import aiohttp

        try:
            async with session.post(
                self._url, data=message.payload, headers=self._signed(message), allow_redirects=False
            ) as response:
                await self._settle(message, response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self._again(message, f"{type(error).__name__}: {error}", None)

    async def _settle(self, message: Message, response: ClientResponse) -> None:
        status = response.status
        if 200 <= status < 300:
            self.delivered += 1
            await message.ack()
        elif 400 <= status < 500 and status not in _TRY_AGAIN:
            self.failed += 1
            await message.reject(f"{self._url} answered {status}")
        else:
            await self._again(message, f"answered {status}", response.headers.get("Retry-After"))

    async def _again(self, message: Message, reason: str, wanted: str | None) -> None:
        self.failed += 1
        ceiling = min(self._cap, self._first * 2.0 ** min(message.attempt - 1, 32))
        delay = self._random.uniform(ceiling / 2, ceiling)
        if wanted is not None and wanted.isascii() and wanted.isdigit():
            delay = min(float(wanted), self._cap)
        events().warning(
            "broker-webhook-again", url=self._url, reason=reason, attempt=message.attempt, delay=round(delay, 3)
        )
        await message.nack(delay)

    def _signed(self, message: Message) -> dict[str, str]:
        headers = {"content-type": "application/octet-stream", **self._headers}
        headers.update(
            (name, value) for name, value in message.headers.items() if _is_carried(name) and value.isprintable()
        )
        headers["blocks-topic"] = message.topic
        headers["blocks-offset"] = str(message.offset)
        headers["blocks-attempt"] = str(message.attempt)
        if self._secret is not None:
            ident = f"{message.topic}@{message.offset}"
            headers.update(sign(self._secret, ident, int(self._clock.wall()), message.payload))
        return headers


def _is_carried(name: str) -> bool:
    return name.startswith("ce-") or name in ("content-type", "traceparent", "tracestate")


_KEYS = {
    "pattern", "url", "group", "secret", "headers", "concurrency", "timeout", "max_deliveries", "first", "cap", "start", "dead_letter",
}  # fmt: skip


def read_webhooks(source: Source, path: str | Path) -> list[Webhook]:
    """The webhooks that the ``[[webhook]]`` tables of a TOML file describe. Raises ``ConfigError``."""
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    rows = data.get("webhook")
    if not isinstance(rows, list) or not rows or set(data) != {"webhook"}:
        raise ConfigError(f"{path}: has [[webhook]] tables and nothing else")
    hooks = []
    for number, row in enumerate(rows, 1):
        unknown, missing = set(row) - _KEYS, {"pattern", "url", "group"} - set(row)
        if unknown or missing:
            wrong = f"has no setting {min(unknown)}" if unknown else f"lacks {min(missing)}"
            raise ConfigError(f"{path}: webhook {number} {wrong}; known are {', '.join(sorted(_KEYS))}")
        try:
            hooks.append(Webhook(source, **row))
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path}: webhook {number}: {error}") from error
    return hooks
