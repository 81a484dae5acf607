"""The shop's customers: an open load that does not wait for slow answers, and what they have seen.

Latency counts from the intended start of each request. An order is sent again, under the same key, until it is accepted: so its latency
includes every outage that it met.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from types import MappingProxyType
from typing import Any

from blocks import Request, Response, Upstream
from blocks.testing import Result, constant
from blocks.testing.traffic import Load

from .shop import CUSTOMERS, GREEDY

RATES = {"items": 200, "stock": 60, "pages": 40, "orders": 30}  # requests a second of all customers
GREEDY_RATE = 150  # of one customer alone
ITEMS = 40
PATIENCE = 30.0  # seconds until a customer gives up

Duty = Callable[[Request], Coroutine[Any, Any, Response]]


class Unexpected(Exception):
    """An answer that a customer did not expect."""


@dataclass
class Look:
    """One thing that was seen: when it was asked for, when it was there, which version, and whether the edge had it."""

    asked: float
    answered: float
    version: str
    hit: bool = False


@dataclass
class Seen:
    """What all customers have seen. Moments are seconds of ``clock`` since ``began``."""

    began: float = field(default_factory=time.monotonic)
    items: list[Look] = field(default_factory=list)
    pages: list[Look] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # 429 by customer
    passed: Counter[str] = field(default_factory=Counter)  # by customer, where there is a limit
    unexpected: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    results: dict[str, Result] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)  # when each load began

    def now(self) -> float:
        return time.monotonic() - self.began

    def latencies(self) -> Iterator[tuple[float, float]]:
        """(when it was meant to begin, how long it took) of each request."""
        for kind, result in self.results.items():
            for moment, latency in zip(result.moments, result.latencies, strict=True):
                yield self.starts[kind] + moment, latency


class Customers:
    """Use ``edge``, the shop's one door, with the ``keys`` that they were given."""

    def __init__(self, edge: Upstream, keys: dict[str, str], seen: Seen) -> None:
        self._edge = edge
        self._keys = keys
        self._seen = seen
        self._random = Random(1)

    async def shop(self, seconds: float, greedy: tuple[float, float], say: Callable[[str], None]) -> None:
        """Put the load on; one customer is greedy from the first moment of ``greedy`` to the second, and that is said."""

        async def be_greedy() -> None:
            await asyncio.sleep(greedy[0])
            say(f"one customer becomes greedy: {GREEDY_RATE} requests a second for {greedy[1] - greedy[0]:.1f} s")
            await self._load(GREEDY, self._grab, GREEDY_RATE, greedy[1] - greedy[0])

        duties = {"items": self._item, "stock": self._stock, "pages": self._page, "orders": self._order}
        async with asyncio.TaskGroup() as group:
            for kind, duty in duties.items():
                self._seen.results[kind] = Result()  # in this order in the report
                group.create_task(self._load(kind, duty, RATES[kind], seconds))
            group.create_task(be_greedy())

    async def _load(self, kind: str, duty: Duty, rate: float, seconds: float) -> None:
        self._seen.starts[kind] = self._seen.now()
        load = Load(duty, lambda number: Request("GET", f"/{number}"), timeout=PATIENCE)
        self._seen.results[kind] = await load.open(constant(rate, seconds))

    # -- what one customer does; the request that the load made holds the number only

    async def _item(self, request: Request) -> Response:
        number = int(self._random.paretovariate(0.7)) % ITEMS  # some items are much more in demand
        asked = self._seen.now()
        response = await self._ask("GET", f"/items/{number}")
        price = json.loads(await response.read())["price"]
        hit = "hit" in response.headers.get("cache-status", "")
        self._seen.items.append(Look(asked, self._seen.now(), price, hit))
        return response

    async def _page(self, request: Request) -> Response:
        asked = self._seen.now()
        response = await self._ask("GET", "/")
        release = (await response.read()).decode().partition("</h1>")[0].rpartition(" ")[2]
        self._seen.pages.append(Look(asked, self._seen.now(), release))
        return response

    async def _stock(self, request: Request) -> Response:
        number = int(request.path[1:])
        return await self._limited(CUSTOMERS[number % len(CUSTOMERS)], number % ITEMS)

    async def _grab(self, request: Request) -> Response:
        return await self._limited(GREEDY, 1)

    async def _limited(self, customer: str, item: int) -> Response:
        response = await self._ask("GET", f"/stock/{item}", self._keys[customer], fine=(200, 429))
        (self._seen.refused if response.status == 429 else self._seen.passed)[customer] += 1
        return response

    async def _order(self, request: Request) -> Response:
        number = request.path[1:]
        key = self._keys[CUSTOMERS[int(number) % len(CUSTOMERS)]]
        for attempt in count():
            more = {"idempotency-key": number, "x-try": f"{number}.{attempt}"}
            response = await self._ask("POST", "/orders", key, more, number.encode(), fine=(202, 502, 503, 504))
            if response.status == 202:
                self._seen.accepted.add(number)
                break
            self._seen.repeated += 1
            await asyncio.sleep(0.1)
        return response

    async def _ask(
        self,
        method: str,
        path: str,
        key: str = "",
        more: Mapping[str, str] = MappingProxyType({}),
        body: bytes = b"",
        fine: tuple[int, ...] = (200,),
    ) -> Response:
        fields = {"host": "shop.example", **({"x-api-key": key} if key else {}), **more}
        response = await self._edge(Request(method, path, fields, body))
        await response.read()
        if response.status not in fine:
            self._seen.unexpected[f"{method} {path.split('/')[1]} {response.status}"] += 1
            raise Unexpected(response.status)
        kept = "hit" in response.headers.get("cache-status", "")
        self._seen.answered_by["edge" if kept else response.headers.get("x-by", "gateway")] += 1
        return response
