"""A stack is a topology from a file, or from tables, in one process and on one loop: handlers, brokers, and servers before them.

>>> async with Stack.load("stack.toml") as stack:        # doctest: +SKIP
...     print(stack.servers["public"].url, stack["users"].endpoints)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, NamedTuple

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import Complaint
from blocks.core.quantities import seconds
from blocks.core.status import Status, worst
from blocks.core.turns import short_turns
from blocks.http.handler import Handler, chain, status_of

from .change import Change, refused
from .listeners import Ground, Listener
from .lives import Life, Lives
from .node import Node
from .source import Source, of_tables, read_stack
from .version import Version, make_version

Aside = Callable[[Callable[[], Version]], Awaitable[Version]]


async def at_once(make: Callable[[], Version]) -> Version:
    """Make a version here and now, on the loop: where there may be no thread, as in a test in virtual time."""
    return make()


async def in_a_thread(make: Callable[[], Version]) -> Version:
    """Make a version in a thread, so that requests go on meanwhile."""
    with short_turns():
        return await asyncio.to_thread(make)


class Given(NamedTuple):
    """What every version of a stack is made with. ``workers`` overrules ``[process] workers``."""

    clock: Clock
    random: Random
    environment: Mapping[str, str]
    workers: int | None


class Stack:
    """What a file describes, ready to run: enter it to start all of it, in order; leave it to stop.

    ``servers`` are its listeners by name, while it runs; ``stack["users"]`` is the object of ``[balancers.users]`` and so on;
    ``warnings`` are what is doubtful in the file. ``reload()`` reads the file again.
    """

    def __init__(self, version: Version, given: Given, source: Callable[[], Source]) -> None:
        self.version = version
        self.servers: dict[str, Listener] = {}
        self.lives = Lives()
        self.entered: dict[int, Life] = {}  # by the id of their node
        self.ground = Ground()
        self.aside: Aside = at_once
        self.grace: float | None = None  # a flag's drain timeout goes before the file's
        self.running = False
        self.last_error = ""
        self.reloads = 0  # that came to be in force
        self.loaded = given.clock.wall()
        self.given = given
        self._source = source
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @classmethod
    def load(
        cls,
        stack: str | os.PathLike[str] | Mapping[str, Any],
        *,
        base: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM,
        random: Random | None = None,
        workers: int | None = None,
    ) -> Stack:
        """Read and check a file, or tables (paths in them are relative to ``base``), and make everything; nothing of it runs yet.

        ``environment`` is what ``${NAME}`` is filled from (the process's). Raises ``StackErrors`` with everything that is wrong.
        """
        given = Given(clock, random or Random(), os.environ if environment is None else environment, workers)
        if isinstance(stack, Mapping):
            tables = dict(stack)

            def source() -> Source:
                return of_tables(tables, None if base is None else Path(base))
        else:
            path = Path(stack)

            def source() -> Source:
                return read_stack(path, given.environment)

        return cls(_made(source(), given, None), given, source)

    # -- what there is

    def __getitem__(self, name: str) -> Any:
        """The object of that name: a balancer, an edge, a gateway's front, an upstream, an application, a broker. Raises ``KeyError``."""
        node = self.nodes.get(name)
        if node is None:
            raise KeyError(f"there is no {name!r} in the stack; there is {', '.join(sorted(self.nodes)) or 'nothing'}")
        return node.block

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    @property
    def nodes(self) -> dict[str, Node]:
        """Every node by its name; a broker that is called as a handler is stands behind it."""
        brokers = {node.name: node for node in self.version.nodes.values() if node.kind == "brokers"}
        return {**brokers, **self.version.handlers()}

    def of_kind(self, kind: str) -> dict[str, Node]:
        """The nodes of ``[kind.NAME]``, by name."""
        return {node.name: node for node in self.version.nodes.values() if node.kind == kind}

    def handler(self, name: str) -> Handler:
        """The handler of that name as servers call it; it stays the same over reloads."""
        return self.version.places[name].front

    @property
    def warnings(self) -> list[Complaint]:
        """What is doubtful in the file."""
        return self.version.warnings

    @property
    def status(self) -> Status:
        """As well as the worst of what servers ask, and of the brokers."""
        asked = [listener.handler for listener in self.servers.values()]
        brokers = [node.block for node in self.of_kind("brokers").values()]
        return worst(status_of(one) for one in (*asked, *brokers))

    @property
    def drain_timeout(self) -> float:
        """Seconds that requests have to finish."""
        return self.grace if self.grace is not None else seconds(self.version.settings.process.drain_timeout)

    # -- life

    async def __aenter__(self) -> Stack:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start brokers, then handlers, the inner first, then servers. Raises ``CannotBind``; then nothing is left running."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.stop)
            for node in self.version.in_order():
                self.entered[id(node)] = await self.lives.enter(node)
                self.put(node)
            for name in self.version.settings.servers:
                listener = self.listener(self.version, name)
                await listener.open(self.ground, {})
                self.servers[name] = listener
            self.running = True
            stack.pop_all()

    def put(self, node: Node) -> None:
        """Let a node answer for its name."""
        if node.kind != "brokers":
            self.version.places[node.name].put(node)

    def listener(self, version: Version, name: str) -> Listener:
        """A server of that version, not listening yet. Raises ``ConfigError`` for certificates that are no good."""
        table = version.settings.servers[name]
        return Listener(
            name, table, chain(*version.filters[name], to=version.asked[name]),
            folder=version.source.folder(("servers", name)), clock=self.given.clock,
            drain=seconds(version.settings.process.drain_timeout),
        )  # fmt: skip

    async def drain(self, timeout: float | None = None) -> bool:
        """Accept no more, and let requests finish, then the brokers' clients; whether none had to be cut within ``timeout`` seconds."""
        grace = self.drain_timeout if timeout is None else timeout
        time = asyncio.get_running_loop().time
        until = time() + grace
        drained = await asyncio.gather(*(listener.drain(grace) for listener in self.servers.values()))
        if self._retiring:  # what an earlier version has under way counts, too
            _, cut = await asyncio.wait(self._retiring, timeout=max(0.0, until - time()))
            drained += [not cut]
        houses = [node.roots[0] for node in self.of_kind("brokers").values()]
        settled = await asyncio.gather(*(_drain(house, max(0.0, until - time())) for house in houses))
        return all(drained) and all(settled)

    async def stop(self) -> None:
        """Stop everything now; what was under way is cut unless ``drain`` came first."""
        self.running = False
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        async with AsyncExitStack() as stack:
            entered, self.entered = self.entered, {}
            order = [id(node) for node in self.version.in_order() if id(node) in entered]
            for key in (*order, *(key for key in entered if key not in order)):  # left in reverse
                stack.push_async_callback(self.lives.leave, entered[key])
            servers, self.servers = self.servers, {}
            for listener in servers.values():
                stack.push_async_callback(listener.stop, 0.0)

    # -- change

    async def reload(self, tables: Mapping[str, Any] | None = None) -> Version:
        """Read the file again (or take ``tables`` in its place) and change to what it says; what stays the same goes on undisturbed.

        Raises ``ConfigError`` with everything that is wrong, and what runs goes on as it was. Returns when the new version answers; what is
        gone finishes its requests behind.
        """
        async with self._changing:
            source = self._source
            if tables is not None:
                given, folder = dict(tables), self.version.source.base

                def source() -> Source:
                    return of_tables(given, folder)

            change = await self._prepared(source)
            version = await self._commit(change)
            self._source = source
            return version

    async def prepare(self, source: Source) -> Change:
        """Make and start what ``source`` says, which answers nothing until ``commit``; that or ``abandon`` must follow.

        Raises ``ConfigError`` with everything that is wrong, and has left nothing then.
        """
        await self._changing.acquire()
        try:
            return await self._prepared(lambda: source)
        except BaseException:
            self._changing.release()
            raise

    async def commit(self, change: Change) -> Version:
        """Let what was prepared answer. Returns when it does; what is gone finishes its requests behind."""
        try:
            return await self._commit(change)
        finally:
            self._changing.release()

    async def abandon(self, change: Change | None, error: Exception) -> None:
        """Forget what was prepared, if anything was, and tell why."""
        try:
            if change is not None:
                await change.undo()
            self.last_error = refused(error)
        finally:
            if change is not None:
                self._changing.release()

    async def _prepared(self, source: Callable[[], Source]) -> Change:
        change = Change(self)
        try:
            await change.prepare(await self.aside(lambda: _made(source(), self.given, self.version)))
        except Exception as error:
            self.last_error = refused(error)
            raise
        return change

    async def _commit(self, change: Change) -> Version:
        version = await change.commit()
        self.last_error = ""
        self.reloads += 1
        self.loaded = self.given.clock.wall()
        task = asyncio.get_running_loop().create_task(change.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return version

    def read(self) -> Source:
        """What the file says now, the files of its gateways too: one process may read it for several. Raises ``StackErrors``."""
        source = self._source()
        source.read_all(self.given.environment)
        return source

    def anew(self, source: Source) -> Stack:
        """A stack of that source as this one was made of its own, and with draws of its own: for another process."""
        given = self.given._replace(random=Random())
        return Stack(_made(source, given, None), given, self._source)

    @property
    def retiring(self) -> int:
        """Versions whose last requests are still under way."""
        return len(self._retiring)


async def _drain(house: Any, grace: float) -> bool:
    return bool(await house.drain(grace))


def _made(source: Source, given: Given, before: Version | None) -> Version:
    return make_version(
        source,
        clock=given.clock,
        random=given.random,
        environment=given.environment,
        workers=given.workers,
        before=before,
    )
