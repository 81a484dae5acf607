"""The kit: origins, blocks and load on one loop, one clock and one seed. The fixture ``blocks`` is one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.http.handler import Handler
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from .clock import LoopClock
from .disk import Disk
from .door import Door
from .front import Front
from .fronts import BalancerFront, EdgeFront, GatewayFront
from .link import Link
from .origin import Answer, Origin
from .result import Result
from .tcp_origin import Script, TcpOrigin
from .tenant import Tenant
from .timeline import Timeline
from .traffic import load
from .virtual import VirtualLoop
from .waiting import until

if TYPE_CHECKING:
    from blocks.balancer import LoadBalancer
    from blocks.broker import Broker
    from blocks.edge import Edge
    from blocks.gateway import Gateway

    from .topology import Topology

T = TypeVar("T")
EDGE_STORE = "64MiB"  # of an edge's second tier; tests fill less
STOP_WITHIN = 5.0  # seconds for all of it together; each part has a bound of its own below this


class Kit:
    """Makes what a test needs and stops it at the end, the last first. Use it as ``async with Kit() as blocks``, or by the fixture.

    ``seed`` is behind everything that is drawn: policies, jitter, faults, corrupted bytes. ``clock`` follows the running loop, so it is
    virtual on a ``VirtualLoop``. A kit belongs to one loop, that of its first call.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.random = Random(seed)
        self._stack = AsyncExitStack()
        self._clock: LoopClock | None = None
        self._timeline: Timeline | None = None
        self._names: dict[str, int] = {}

    async def __aenter__(self) -> Kit:
        self._bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _bind(self) -> LoopClock:
        if self._clock is None:
            self._clock = LoopClock(asyncio.get_running_loop(), self._jumped)
            self._stack.callback(events().subscribe(self._logged))
        return self._clock

    def _jumped(self, seconds: float) -> None:
        self.timeline.note("clock", f"the wall clock jumps {seconds:+g} s")

    def _logged(self, event: dict[str, Any]) -> None:
        """What blocks log belongs on the timeline, too, but for what came there already."""
        fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("at", "level", "event"))
        self.timeline.note("log", f"{event['level']} {event['event']} {fields}")

    async def close(self) -> None:
        """Stop everything, the last made first. Raises ``TimeoutError`` if that takes more than five seconds."""
        stack, self._stack = self._stack, AsyncExitStack()
        async with asyncio.timeout(STOP_WITHIN):
            await stack.aclose()

    # -- what all share

    @property
    def clock(self) -> LoopClock:
        """The clock of every block here; ``blocks.clock.jump(3600)`` steps the wall clock."""
        return self._bind()

    @property
    def timeline(self) -> Timeline:
        """What happened, over all blocks."""
        if self._timeline is None:
            self._timeline = Timeline(self._bind().monotonic)
        return self._timeline

    @property
    def used(self) -> bool:
        """Whether anything was asked of it yet."""
        return self._clock is not None

    def timeline_text(self) -> str:
        """The timeline for a report; it may be read when the loop is gone."""
        return "nothing happened" if self._timeline is None else self._timeline.render()

    @property
    def virtual(self) -> bool:
        """Whether time is virtual here."""
        return isinstance(asyncio.get_running_loop(), VirtualLoop)

    def _name(self, kind: str) -> str:
        number = self._names[kind] = self._names.get(kind, 0) + 1
        return kind if number == 1 else f"{kind}-{number}"

    async def _keep(self, part: Any) -> Any:
        await part.start()
        self._stack.push_async_callback(part.stop)
        return part

    # -- origins

    async def origin(self, answer: Answer | None = None, *, name: str | None = None, **settings: Any) -> Origin:
        """A scripted origin that listens; ``settings`` are ``Origin``'s."""
        made = Origin(
            answer,
            name=name or self._name("origin"),
            clock=self.clock,
            random=Random(self.random.random()),
            timeline=self.timeline,
            **settings,
        )
        kept: Origin = await self._keep(made)
        return kept

    async def origins(self, count: int, answer: Answer | None = None, **settings: Any) -> list[Origin]:
        """``count`` of them; each answers with its name unless told otherwise."""
        return [await self.origin(answer, **settings) for _ in range(count)]

    async def tcp_origin(self, *scripts: Script, name: str | None = None) -> TcpOrigin:
        """A TCP origin that follows a transcript (``expect PING``, ``send PONG``, a line each) or an async function; see ``TcpOrigin``."""
        made = TcpOrigin(
            *scripts,
            name=name or self._name("tcp-origin"),
            random=Random(self.random.random()),
            timeline=self.timeline,
        )
        kept: TcpOrigin = await self._keep(made)
        return kept

    async def asgi(self, app: Any, *, name: str | None = None, **settings: Any) -> Origin:
        """An ASGI application as an origin: on a socket, with a journal and faults. Its lifespan is run."""
        from blocks.http.adapters import from_asgi

        return await self.origin(from_asgi(app), name=name or self._name("asgi"), **settings)

    async def link(self, target: Any, *, name: str | None = None) -> Link:
        """A TCP link to an origin, a block, a broker or (host, port), with faults and stalls of its own; connect to its ``address``."""
        host, port = _address(target)
        made: Link = await self._keep(
            Link(
                host, port, name=name or self._name("link"), random=Random(self.random.random()), timeline=self.timeline
            )
        )
        return made

    # -- blocks

    async def serve(self, handler: Handler, *, name: str | None = None) -> Front[Any]:
        """Any handler on a free port."""
        front: Front[Any] = await self._front(lambda: handler, name or self._name("server"))
        return front

    async def _front(self, make: Callable[[], Any], name: str, kind: type[Front[Any]] = Front) -> Any:
        return await self._keep(kind(make, name, self.clock, self.timeline))

    async def balancer(self, *members: Any, name: str | None = None, **settings: Any) -> BalancerFront:
        """A load balancer over origins, links to them, other blocks, handlers or URLs; ``settings`` are ``LoadBalancer``'s."""
        from blocks.balancer import LoadBalancer

        known = name or self._name("balancer")
        settings = self._shared(settings)
        settings["on_event"] = self._events(known, settings.get("on_event"))

        def make() -> LoadBalancer:
            return LoadBalancer([self._handler(member) for member in members], name=known, **settings)

        front: BalancerFront = await self._front(make, known, BalancerFront)
        return front

    async def gateway(self, *routes: Any, name: str | None = None, **settings: Any) -> GatewayFront:
        """A gateway over routes: ``route("/api", …)``, or a mapping of templates to members. ``settings`` are ``Gateway``'s."""
        from blocks.gateway import Gateway, route

        shared = self._shared(settings)

        def make() -> Gateway:
            flat: list[Any] = []
            for given in routes:
                if isinstance(given, Mapping):
                    flat += [route(template, self._handler(member)) for template, member in given.items()]
                else:
                    flat.append(given)
            return Gateway(*flat, **shared)

        front: GatewayFront = await self._front(make, name or self._name("gateway"), GatewayFront)
        return front

    async def edge(
        self, origin: Any, *, disk: Disk | None = None, name: str | None = None, **settings: Any
    ) -> EdgeFront:
        """A caching edge before an origin, a block, a handler or a URL; ``settings`` are ``Edge``'s. ``disk`` holds its second tier."""
        from blocks.edge import Edge

        known = name or self._name("edge")
        shared = self._shared({"on_event": self._told(known), **settings})
        size = shared.pop("store_size", EDGE_STORE)

        def make() -> Edge:
            store = shared.get("store") if disk is None else disk.store(size, self.clock)
            return Edge(self._handler(origin), **{**shared, "store": store, "store_size": size})

        front: EdgeFront = await self._front(make, known, EdgeFront)
        if disk is not None:
            disk.attach(front)
        return front

    def disk(self, name: str | None = None) -> Disk:
        """A disk that fails on command, for ``blocks.broker(disk=…)`` and ``blocks.edge(…, disk=…)``."""
        return Disk(name or self._name("disk"), random=Random(self.random.random()), timeline=self.timeline)

    async def broker(
        self, path: Any = ":memory:", *, disk: Any = None, listen: str | None = "127.0.0.1:0", **settings: Any
    ) -> Broker:
        """A broker that listens on a free port, in memory unless given a folder or a ``disk``; ``settings`` are ``Broker``'s."""
        from blocks.broker import Broker

        shared = self._shared({"on_event": self._told(self._name("broker")), **settings})
        volume = disk.for_broker() if isinstance(disk, Disk) else disk
        broker: Broker = await self._keep(Broker(path, listen=listen, disk=volume, **shared))
        if isinstance(disk, Disk):
            disk.attach(Tenant(broker))
        return broker

    async def stack(
        self,
        source: Any,
        *,
        replace: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        disk: bool = False,
    ) -> Topology:
        """A whole topology from a stack's file, its text or its tables, on free ports and in memory (but with ``disk``).

        ``replace`` sets values by dotted key, origins standing for their URL: ``{"upstreams.users.url": a}``. ``environment`` is what
        ``${NAME}`` is filled from, before the process's own. Raises ``StackErrors``.
        """
        from .topology import make

        made = make(
            source,
            replace=replace,
            environment=environment,
            disk=disk,
            clock=self.clock,
            random=Random(self.random.random()),
            timeline=self.timeline,
        )
        kept: Topology = await self._keep(made)
        return kept

    async def client(self, broker: Broker | Link, **settings: Any) -> Any:
        """A connected client of a broker, or of a link to one; ``settings`` are those of ``blocks.broker.connect``."""
        from blocks.broker import connect

        url = "blocks://{}:{}".format(*broker.address) if isinstance(broker, Link) else broker.url
        return await self.enter(connect(url, **settings))

    async def enter(self, part: Any) -> Any:
        """Enter any async context manager, and leave it at the end."""
        return await self._stack.enter_async_context(part)

    def upstream(self, member: Any, **settings: Any) -> Upstream:
        """An upstream to an origin or a block over its socket, with settings: ``blocks.upstream(a, timeout="1s")``."""
        return Upstream(_url(member), **{"name": getattr(member, "name", ""), **settings})

    def _shared(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"clock": self.clock, "random": Random(self.random.random()), **settings}

    def _handler(self, member: Any) -> Any:
        if isinstance(member, Door):
            return self.upstream(member)
        if isinstance(member, Front):
            return member
        return Upstream(member) if isinstance(member, str) else member

    def _told(self, name: str) -> Callable[[str, str], None]:
        return lambda kind, detail: self.timeline.note(name, f"{kind} {detail}")

    def _events(self, name: str, more: Callable[[Any], None] | None) -> Callable[[Any], None]:
        def note(event: Any) -> None:
            self.timeline.note(name, event)
            if more is not None:
                more(event)

        return note

    # -- load, and looking

    async def load(
        self, target: Any, rate: float | str | None = None, duration: float | str = 10.0, **more: Any
    ) -> Result:
        """Load on a block, an origin or a URL over its socket, or on a handler in the process; see ``traffic.load``."""
        plain = target if isinstance(target, str) or not hasattr(target, "url") else _url(target)
        result = await load(plain, rate, duration, **more)
        self.timeline.note("load", repr(result))
        return result

    async def get(self, target: Any, path: str = "/", headers: dict[str, str] | None = None) -> Response:
        """One GET over a connection of its own; the answer's body is read."""
        async with Upstream(_url(target)) as client:
            host = _url(target).partition("://")[2]
            response = await client(Request("GET", path, {"host": host, **(headers or {})}))
            await response.read()
            return response

    async def until(self, condition: Callable[[], T | Awaitable[T]], timeout: float | str = 60.0) -> T:
        """Wait for a condition: ``await blocks.until(lambda: lb.healthy == 1)``."""
        return await until(condition, timeout)


def _url(member: Any) -> str:
    url = member if isinstance(member, str) else getattr(member, "url", None)
    if not isinstance(url, str):
        raise ConfigError(f"{member!r} has no URL; give an origin, a block of this kit, or a URL")
    return url


def _address(member: Any) -> tuple[str, int]:
    """(host, port) of whatever has an address or a URL."""
    if isinstance(member, tuple):
        return member[0], member[1]
    parts = urlsplit(_url(member))
    if parts.hostname is None or parts.port is None:
        raise ConfigError(f"{member!r} names no host and port")
    return parts.hostname, parts.port
