"""The connection to a broker that routes name by URL: one for all of them, made again for as long as the gateway runs.

A broker that is away closes the routes that need it and no others: what is asked of them meanwhile is refused at once, so that a
client knows that its message was not taken, and nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from blocks.core.backoff import Backoff
from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration
from blocks.core.errors import BlocksError, ConfigError
from blocks.core.logging import events
from blocks.core.messaging import Client, Delivery, Receipt, connect
from blocks.core.quantities import seconds
from blocks.core.status import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blocks.gateway.site import Site

CONNECT_TIMEOUT = 5.0  # seconds; as for services
FIRST, CAP = 0.1, 2.0  # seconds between tries; nats.py waits 2 s
RENEW = (
    60.0  # seconds without a connection after which a client that keeps one by itself is taken for dead and made anew
)
LOOK = 1.0  # seconds between two looks at it


class BrokerAway(BlocksError):
    """There is no connection to the broker now: nothing was sent, and the client may try again."""


class BrokerTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``[brokers.NAME]``: ``url``; ``token``, or ``user`` and ``password``; ``tls``: the file of the authority that its certificate is
    checked against; ``name``: how the broker calls us."""  # fmt: skip

    url: str
    token: str = ""
    user: str = ""
    password: str = ""
    tls: str = ""
    name: str = "gateway"
    connect_timeout: Duration = CONNECT_TIMEOUT


class Connection:
    """A ``Publisher`` and ``Subscriber`` over a connection that is kept. A part: ``running`` enters it; it may be entered again.

    Raises ``ConfigError`` for what is wrong with the URL or the options; nothing is asked of the network before it is entered.
    """

    def __init__(self, url: str, *, random: Random | None = None, **options: Any) -> None:
        self._url = url
        self._options = options
        self._first: Client | None = connect(url, **options)  # what is wrong is said now
        where = urlsplit(url)
        self.name = f"{where.scheme}://{where.netloc.rpartition('@')[2]}"  # without the credentials
        self._backoff = Backoff(FIRST, CAP, random=random)
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.renewed = 0

    @property
    def status(self) -> Status:
        """OPEN while connected."""
        return Status.OPEN if self._client is not None and self._client.connected else Status.CLOSED

    async def __aenter__(self) -> Connection:
        """Try once, so that a broker that is there is connected when the gateway says that it is ready; then go on trying."""
        await self._try()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="gateway-broker")
        return self

    async def __aexit__(self, *_: object) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        await self._leave()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Receipt:
        """Publish. Raises ``BrokerAway`` when there is no connection, and what the client raises."""
        return await self._now().publish(topic, payload, key=key, headers=headers, id=id)

    def subscribe(
        self, pattern: str, *, group: str | None = None, start: str | int | float = "latest", prefetch: int = 100
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Subscribe. Raises ``BrokerAway`` when there is no connection; one that breaks later is taken up again by the client."""
        return self._now().subscribe(pattern, group=group, start=start, prefetch=prefetch)

    def _now(self) -> Client:
        client = self._client
        if client is None or not client.connected:
            raise BrokerAway(f"there is no connection to {self.name} now")
        return client

    async def _try(self) -> bool:
        """Whether there is a client that has connected; an event says why not, once for each time that it is away."""
        client, self._first = self._first or connect(self._url, **self._options), None
        try:
            await client.__aenter__()
        except (BlocksError, OSError) as error:
            if not self._backoff.tries:
                events().warning("broker_away", broker=self.name, error=str(error))
            return False
        self._client = client
        if self._backoff.tries:
            events().info("broker_there", broker=self.name)
        self._backoff.reset()
        return True

    async def _keep(self) -> None:
        """Connect; then look whether the client still keeps its connection up, and make another when it has not for long."""
        loop = asyncio.get_running_loop()
        while True:
            while self._client is None:
                await asyncio.sleep(self._backoff.next())
                await self._try()
            seen = loop.time()
            while loop.time() - seen < RENEW:
                await asyncio.sleep(LOOK)
                if self._client.connected:
                    seen = loop.time()
            self.renewed += 1
            await self._leave()

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)


def make(given: dict[str, Any], site: Site) -> Connection:
    """The connection of a ``[brokers.NAME]`` table. Raises ``ConfigError``."""
    table = site.decode(BrokerTable, given)
    with below("token"):
        if table.token and (table.user or table.password):
            raise ConfigError("a broker is told a token, or a user and a password, not both")
    options: dict[str, Any] = {"name": table.name}
    with below("connect_timeout"):
        options["connect_timeout"] = seconds(table.connect_timeout)
    options |= {key: value for key in ("token", "user", "password") if (value := getattr(table, key))}
    if table.tls:
        with below("tls"):
            site.file(table.tls)  # beside the file, and readable
        options["tls"] = str(site.base / table.tls)
    with below("url"):
        return _kept(table.url, site, **options)


def at_url(url: str, site: Site) -> Connection:
    """The connection to a URL that a route names; routes of the same one share it. Raises ``ConfigError``."""
    return _kept(url, site, name=BrokerTable(url=url).name)


def _kept(url: str, site: Site, **options: Any) -> Connection:
    """It goes on through a reload that says nothing else of it."""
    random = Random(site.random.random())
    key = ("broker", url, *sorted(options.items()))
    return site.kept(key, lambda: Connection(url, random=random, **options))
