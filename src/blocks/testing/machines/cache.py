"""An origin whose pages change, a cache before it, purges and outages: what is served is never staler than was promised."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from blocks.core.errors import Failure
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from ..origin import Origin
from .machine import Machine

PAGES = ("/a", "/b?x=1")


class CacheMachine(Machine):
    """Subclass it, say the ``ttl`` and the ``grace``, and override ``build`` if it is not an edge of ours.

    Held to: a version that was replaced more than ``ttl`` seconds ago is not served, or more than ``ttl + grace`` while the origin is
    down; a version that was purged is never served again; ``Age`` tells no less than the truth; while the origin is well every request
    is answered.
    """

    ttl: ClassVar[float] = 60.0
    grace: ClassVar[float] = 600.0
    patience: ClassVar[float] = 30.0

    async def build(self, origin: Origin) -> Any:
        """What caches, before the origin: it has a ``url``; override ``purge``, too."""
        return await self.blocks.edge(origin, grace=self.grace)

    async def purge(self, page: str) -> None:
        """Purge one page."""
        self.front.purge(url=self.front.url + page)

    async def setup(self) -> None:
        """An origin, and the cache before it."""
        self.versions = {page: [(self.now, 1)] for page in PAGES}  # (since when, which)
        self.least = dict.fromkeys(PAGES, 0)  # no older version may be served: it was purged
        self.down_since: float | None = None
        self.well_since = self.now
        self.origin = await self.blocks.origin(self._answer)
        self.front = await self.build(self.origin)
        self.client = await self.blocks.enter(Upstream(self.front.url, timeout=self.patience, name="client"))

    def _answer(self, request: Request) -> Response:
        version = self.versions[request.target][-1][1]
        return Response(200, {"cache-control": f"max-age={self.ttl:g}"}, b"%d" % version)

    @rule(page=st.sampled_from(PAGES))
    def publish(self, page: str) -> None:
        """The page changes at the origin."""
        versions = self.versions[page]
        versions.append((self.now, versions[-1][1] + 1))
        self.blocks.timeline.note("origin", f"publishes {page} version {versions[-1][1]}")

    @rule(page=st.sampled_from(PAGES))
    def purge_page(self, page: str) -> None:
        """The page is purged: what was current before is not served any more."""
        self.run(self.purge(page))
        self.least[page] = self.versions[page][-1][1]

    @rule(share=st.sampled_from((0.4, 0.9, 1.1)))
    def grow_old(self, share: float) -> None:
        """A part of a lifetime passes, or a little more than one."""
        self.time_passes(self.ttl * share)

    @rule()
    def go_down(self) -> None:
        """The origin is killed."""
        self.origin.crash()
        self.down_since = self.now if self.down_since is None else self.down_since

    @rule()
    def come_back(self) -> None:
        """The origin is there again."""
        self.run(self.origin.recover())
        if self.down_since is not None:
            self.down_since, self.well_since = None, self.now

    @rule(page=st.sampled_from(PAGES))
    def ask(self, page: str) -> None:
        """A client asks for a page."""
        self.run(self._ask(page))

    @rule()
    def ask_for_all(self) -> None:
        """A client asks for every page."""
        for page in PAGES:
            self.run(self._ask(page))

    async def _ask(self, page: str) -> None:
        host = self.front.url.partition("://")[2]
        try:
            response = await self.client(Request("GET", page, {"host": host}))
            body = bytes(await response.read())
        except Failure as failure:
            self.fail(f"{page} was not answered: {failure.reason}")
        self.blocks.timeline.note("client", f"{page} -> {response.status} version {body!r}")
        if response.status != 200:
            if self.down_since is None and self.now - self.well_since > self.patience:
                self.fail(f"{page} is {response.status}, and the origin is well")
            return
        self._judge(page, int(body), int(response.headers.get("age") or 0))

    def _judge(self, page: str, version: int, age: int) -> None:
        if version < self.least[page]:
            self.fail(f"{page}: version {version} was purged")
        replaced = next((since for since, number in self.versions[page] if number == version + 1), None)
        if replaced is None:
            return
        stale = self.now - replaced
        trouble = self.down_since is not None or self.now - self.well_since <= self.patience
        promise = self.ttl + (self.grace if trouble else 0.0)
        if stale > promise + 1.0:  # ages are told and compared in whole seconds
            self.fail(f"{page}: version {version} was replaced {stale:g} s ago, and {promise:g} s are promised")
        if age + 1.0 < stale:
            self.fail(f"{page}: version {version} says Age: {age}, and was replaced {stale:g} s ago")
