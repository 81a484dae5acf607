"""A stack changes to another version as a whole: build, enter and listen first; swap in one turn of the loop; let the old finish.

Nothing that runs is touched before all of the new is right and started. A request is answered by what stood there when it began.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blocks.core.config.complaint import Complaint
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.http.server import CannotBind

from .listeners import Listener, addresses_of
from .lives import CannotStart, Life
from .node import Node
from .settings import NOTHING_LISTENS, serves
from .source import StackErrors, canonical
from .version import Version

if TYPE_CHECKING:
    from .stack import Stack

_LOOK = 0.05  # seconds between two looks whether the last requests of what is gone have ended


class Change:
    """One change of one stack: ``prepare``, then ``commit``, and ``retire`` behind; or ``undo``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._version: Version | None = None
        self._fresh: list[Node] = []
        self._entered: list[tuple[Node, Life]] = []
        self._opened: dict[str, Listener] = {}
        self._refreshed: list[Callable[[], None]] = []
        self._lent: list[socket.socket] = []
        self._gone_nodes: list[Node] = []
        self._gone_listeners: list[Listener] = []
        self._under_way: list[Any] = []

    async def prepare(self, version: Version) -> None:
        """Start all that is new in ``version``, and listen; it answers nothing yet. Raises ``ConfigError``, and has left nothing then."""
        stack = self._stack
        old = stack.version
        _refuse_what_cannot_change(old, version)
        fresh = [node for node in version.in_order() if old.nodes.get((node.kind, node.name)) is not node]
        try:
            for node in fresh:
                self._entered.append((node, await stack.lives.enter(node)))
                if (
                    node.kind != "brokers" and node.name not in old.places
                ):  # only new listeners can ask it before the swap
                    version.places[node.name].put(node)
            await self._listen(version)
        except BaseException as error:
            await self.undo()
            if isinstance(error, CannotBind | CannotStart):
                at = error.at if isinstance(error, CannotStart) else ()
                raise StackErrors([Complaint(at, str(error.args[-1]))], version.source) from error
            raise
        self._version, self._fresh = version, fresh

    async def commit(self) -> Version:
        """Let what was prepared answer, from one turn of the loop to the next."""
        version = self._version
        assert version is not None
        if not self._stack.running:  # it was stopped meanwhile
            await self.undo()
            raise ConfigError("the stack does not run")
        self._swap(self._stack.version, version, self._fresh)
        for refreshed in self._refreshed:
            refreshed()
        for listener in self._opened.values():
            await listener.accept()
        return version

    async def _listen(self, version: Version) -> None:
        """Listen for servers that are new or changed; those that stay read their certificates anew."""
        stack = self._stack
        for name in version.settings.servers:
            at = ("servers", name)
            before = stack.servers.get(name)
            try:
                if before is not None and _stays(stack.version, version, name):
                    self._refreshed.append(before.refresh())
                    continue
                listener = stack.listener(version, name)
                await listener.open(stack.ground, self._borrow(before, listener), accept=False)
            except (CannotBind, ConfigError) as error:
                key = "listen" if isinstance(error, CannotBind) else "tls"
                raise StackErrors([Complaint((*at, key), str(error.args[-1]))], version.source) from error
            self._opened[name] = listener

    def _borrow(self, before: Listener | None, listener: Listener) -> dict[str, list[socket.socket]]:
        """The sockets of the addresses that stay, of whichever server has them now."""
        wanted = addresses_of(listener.table)
        owners = self._stack.servers.values() if before is None else [before, *self._stack.servers.values()]
        lent: dict[str, list[socket.socket]] = {}
        for owner in owners:
            for address in addresses_of(owner.table):
                fixed = owner is before or not address.endswith(":0")  # port 0 of another server is another port
                if address in wanted and address not in lent and fixed:
                    lent[address] = owner.lend(address)
                    self._lent += lent[address]
        return lent

    async def undo(self) -> None:
        """Leave everything as it was."""
        for listener in self._opened.values():
            await listener.stop(0.0)
        for sock in self._lent:
            sock.close()
        for _, life in reversed(self._entered):
            await self._stack.lives.leave(life)

    def _swap(self, old: Version, version: Version, fresh: list[Node]) -> None:
        """From here on the new version answers. Nothing in it may fail, and nothing waits."""
        stack = self._stack
        now = set(map(id, version.nodes.values()))
        self._gone_nodes = [node for node in old.in_order() if id(node) not in now]
        stack.version = version
        for node, life in self._entered:
            stack.entered[id(node)] = life
        for node in fresh:
            _join(node)
            stack.put(node)
        servers = {name: self._opened.get(name) or stack.servers[name] for name in version.settings.servers}
        kept = set(map(id, servers.values()))
        self._gone_listeners = [one for one in stack.servers.values() if id(one) not in kept]
        self._under_way = [
            request
            for listener in (*stack.servers.values(), *self._opened.values())
            if listener.server is not None and listener.server.service is not None
            for request in listener.server.service.under_way()
        ]
        for gone in self._gone_listeners:
            for heir in self._opened.values():
                gone.bequeath(heir)
        stack.servers = servers
        events().info(
            "reloaded", digest=version.digest, changed=[f"{node.kind}.{node.name}" for node in fresh],
            gone=[f"{node.kind}.{node.name}" for node in self._gone_nodes], listeners=list(self._opened),
        )  # fmt: skip

    async def retire(self) -> None:
        """Let what is gone finish its requests, for as long as a drain may take; then leave it."""
        stack = self._stack
        grace = stack.drain_timeout
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        kept = [one.server.service for one in stack.servers.values() if one.server is not None]
        try:
            await asyncio.gather(*(listener.stop(grace) for listener in self._gone_listeners))
            for node in self._gone_nodes:
                if node.kind == "brokers":
                    house: Any = node.roots[0]
                    await house.drain(max(0.0, until - loop.time()))
            began = set(map(id, self._under_way))
            while loop.time() < until:
                if not any(id(one) in began for service in kept if service is not None for one in service.under_way()):
                    break
                await asyncio.sleep(_LOOK)
        finally:
            self._under_way = []
            for listener in self._gone_listeners:
                await listener.stop(0.0)
            for node in reversed(self._gone_nodes):
                await self._leave(node)
            self._forget()

    async def _leave(self, node: Node) -> None:
        life = self._stack.entered.pop(id(node), None)
        if life is None:
            return
        try:
            await self._stack.lives.leave(life)
        except Exception as error:  # nobody waits for what is gone: it is told, and the others are left all the same
            events().error("leave-failed", node=f"{node.kind}.{node.name}", error=error)

    def _forget(self) -> None:
        """Let go of what only the gateways before have kept."""
        for node in self._stack.of_kind("gateways").values():
            gateway = node.block.gateway
            gateway.kept.forget(set(gateway.kept.objects) - gateway.snapshot.site.used)


def refused(error: Exception) -> str:
    """Tell that a version was refused; what was wrong, for people."""
    report = error.report() if isinstance(error, StackErrors) else str(error)
    count = len(error.complaints) if isinstance(error, StackErrors) else 1
    events().error("reload-refused", errors=count, report=report)
    return report


def _join(node: Node) -> None:
    """Let it take over what the one before has learnt; if it cannot, it begins cold."""
    joins, node.joins = node.joins, None
    if joins is None:
        return
    try:
        joins()
    except Exception as error:  # a swap that stops half way would be worse than a cold start
        events().error("starts-cold", node=f"{node.kind}.{node.name}", error=error)


def _stays(old: Version, new: Version, name: str) -> bool:
    """Whether a server's table is the same, and so is what it asks."""
    tables = [canonical(version.source.tables["servers"].get(name)) for version in (old, new)]
    process = [canonical(version.settings.process.drain_timeout) for version in (old, new)]
    return tables[0] == tables[1] and process[0] == process[1] and old.asked[name] is new.asked[name]


def _refuse_what_cannot_change(old: Version, new: Version) -> None:
    """A broker's log is one and open, processes and the admin's address are set at the start, and what serves goes on serving."""
    complaints = [
        Complaint(("brokers", node.name), "a broker's settings cannot change while it runs; restart for that")
        for key, node in new.nodes.items()
        if node.kind == "brokers" and key in old.nodes and old.nodes[key] is not node
    ]
    for key in ("workers", "admin", "admin_token_file", "ports_file", "lame_duck"):
        before, after = getattr(old.settings.process, key), getattr(new.settings.process, key)
        if before != after:
            said = f"{key} cannot change while the process runs ({before!r} → {after!r}); restart for that"
            complaints.append(Complaint(("process", key), said))
    if serves(old.settings) and not serves(new.settings):  # a file that is just being written is empty at first
        complaints.append(Complaint((), NOTHING_LISTENS))
    if complaints:
        raise StackErrors(complaints, new.source)
