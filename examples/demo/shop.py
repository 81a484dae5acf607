"""The shop: edge → gateway → two balancers → services; orders through the broker to billing and notification workers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from blocks import Request, Upstream, connect
from blocks.gateway.auth import new_key

from .processes import Block, Process, Service, Worker

CUSTOMERS = ("ann", "bob", "cleo", "dev", "eve", "finn", "gita", "hal")
GREEDY = "greedy"
RATE, BURST = 40, 120  # requests a second of one customer that the gateway lets pass, and how many at once

GATEWAY = f"""
[gateway]
auth = "deny"                       # what does not say who may use it is closed
trusted = ["127.0.0.1"]             # the edge tells whose request it is

[services.catalog]
url = "${{CATALOG}}"
[services.orders]
url = "${{ORDERS}}"

[limits.customer]
rate = "{RATE}/s"
burst = {BURST}
per = "consumer"

[auth.keys]
type = "api-key"

[[routes]]
path = "/items/{{number:int}}"
methods = ["GET"]
service = "catalog"
auth = "anonymous"

[[routes]]
path = "/stock/{{number:int}}"
methods = ["GET"]
service = "catalog"
auth = "keys"
limit = "customer"

[[routes]]
path = "/orders"
methods = ["POST"]
service = "orders"
auth = "keys"
limit = "customer"
timeout = "10s"
"""


class Shop:
    """Starts every process and ends all of them; ``folder`` holds the broker's log, the edge's store and the files of configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prices = folder / "prices"
        self.keys: dict[str, str] = {}
        self._stack = AsyncExitStack()
        self.catalog = [Service("catalog", name, str(self.prices)) for name in ("alder", "birch", "cedar")]

    async def __aenter__(self) -> Shop:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        self.prices.write_text("1")
        data = str(self.folder / "broker")
        self.broker = Block("broker", "--data", data)
        await self._start(self.broker, *self.catalog)
        self.orders = [Service("orders", name, self.broker.url) for name in ("oak", "pine")]
        self.billing = [Worker("billing", f"billing-{number}", self.broker.url) for number in (1, 2)]
        self.notification = Worker("notification", "notification", self.broker.url)
        await self._start(*self.orders, *self.billing, self.notification)
        self.over_catalog = over_catalog = self._balancer("catalog balancer", self.catalog)
        over_orders = self._balancer("orders balancer", self.orders)
        await self._start(over_catalog, over_orders)
        self.gateway = Block("gateway", "--config", str(self._configure(over_catalog.url, over_orders.url)))
        await self._start(self.gateway)
        store = str(self.folder / "edge")
        self.edge = Block("edge", "--origin", self.gateway.url, "--store", store, "--admin", "127.0.0.1:0")
        await self._start(self.edge)
        self.blocks = [self.edge, self.gateway, over_catalog, over_orders, self.broker]
        await self.push("v1", activate=True)

    async def _start(self, *processes: Process) -> None:
        for process in processes:
            self._stack.push_async_callback(process.stop)
        await asyncio.gather(*(process.start() for process in processes))

    def _balancer(self, name: str, services: list[Service]) -> Block:
        flags = [flag for service in services for flag in ("--upstream", service.url)]
        flags += ["--health-path", "/healthz", "--health-interval", "500ms", "--admin", "127.0.0.1:0"]
        return Block("balancer", *flags, name=name)

    def _configure(self, catalog: str, orders: str) -> Path:
        """The gateway's file; each customer has a key, of which the file knows the hash only."""
        consumers = []
        for customer in (*CUSTOMERS, GREEDY):
            self.keys[customer], known = new_key()
            consumers.append(f'[consumers.{customer}]\nkeys = ["{known}"]\n')
        path = self.folder / "gateway.toml"
        text = GATEWAY.replace("${CATALOG}", catalog).replace("${ORDERS}", orders)
        path.write_text(text + "\n" + "\n".join(consumers))
        return path

    # -- what operators do

    async def push(self, release: str, activate: bool = False) -> None:
        """Send the shop's pages to the edge as ``blocks edge push`` does; what is not pushed is asked of the gateway."""
        pages = self.folder / release
        pages.mkdir()
        (pages / "index.html").write_text(f"<h1>The shop, {release}</h1>")
        (pages / "shop.css").write_text(f"/* {release} */ h1 {{ color: teal }}")
        flags = ["--activate"] if activate else []
        await self._edge("push", str(pages), "--release", release, "--miss", "pull", *flags)

    async def activate(self, release: str) -> None:
        """Switch the edge to a release that it has."""
        await self._edge("activate", release)

    async def _edge(self, *words: str) -> None:
        command = (sys.executable, "-m", "blocks", "edge", *words, "--to", self.edge.admin)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"blocks edge {words[0]}: {errors.decode()}")

    async def drain(self, service: Service, verb: str = "drain") -> None:
        """Give a catalog no new requests, or (``restore``) requests again."""
        await ask(self.over_catalog.admin, "POST", f"/v1/upstreams/{verb}", {"name": service.url})

    async def purge(self, tag: str) -> int:
        """How many entries the edge forgot."""
        answer = await ask(self.edge.admin, "POST", "/v1/edge/purge", {"tag": tag})
        return int(answer["purged"])

    async def stored(self) -> int:
        """Orders that the broker has on disk."""
        async with connect(self.broker.url) as client:
            return sum(topic["messages"] for topic in await client.topics("orders.*"))


async def ask(admin: str, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    """An answer of an admin API."""
    async with Upstream(admin) as door:
        data = json.dumps(body).encode() if body else b""
        response = await door(Request(method, path, {"content-type": "application/json"}, data))
        answer: dict[str, Any] = json.loads(await response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {answer}")
        return answer
