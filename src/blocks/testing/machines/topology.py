"""A topology over members that crash, fall sick, fail and recover, while clients ask: every request is answered, and by one who may."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from blocks.core.errors import Failure
from blocks.http.message import Request, Response
from blocks.http.upstream import Upstream

from .. import strategies
from ..origin import Origin
from .machine import Machine

ID = "x-machine-request"


@dataclass(slots=True)
class Asked:
    """A request of a client, and what it saw: ``status`` 0 for none, ``error`` why."""

    number: int
    method: str
    path: str
    at: float
    status: int = 0
    error: str = ""


class TopologyMachine(Machine):
    """Subclass it and override ``build``: what it returns has a ``url`` (a block of the kit, a topology, a process), and is asked.

    Held to: a request ends within ``patience``; while all members are well for ``detects`` seconds, none fails; a member that is down
    or sick for ``detects`` seconds gets none, if another is well; a method of ``once`` reaches the members at most once; what a client was
    told by a member, the member's journal has. ``check`` is for promises of one's own.
    """

    members: ClassVar[int] = 3
    paths: ClassVar[tuple[str, ...]] = ("/", "/a", "/b?x=1")
    methods: ClassVar[tuple[str, ...]] = ("GET", "POST")
    once: ClassVar[frozenset[str]] = frozenset({"POST"})
    health_path: ClassVar[str] = "/health"
    detects: ClassVar[float] = 10.0
    patience: ClassVar[float] = 60.0

    async def build(self, members: list[Origin]) -> Any:
        """What is under test, over the members. By default a load balancer that probes them every second."""
        from blocks.balancer import Health

        return await self.blocks.balancer(*members, health=Health(path=self.health_path, interval=1.0))

    def check(self, asked: Asked, response: Response) -> None:
        """Override for what must hold of every answer."""

    # -- the story

    async def setup(self) -> None:
        """Members, and what stands before them."""
        self.origins = [
            await self.blocks.origin(_by_name(f"member-{n}"), name=f"member-{n}") for n in range(self.members)
        ]
        self.troubled: dict[int, float] = {}  # member: since when it is down or sick
        self.unsettled = self.now  # when something last changed for the worse or the better
        self.front = await self.build(self.origins)
        self.client = await self.blocks.enter(Upstream(self.front.url, timeout=self.patience, name="client"))
        self.count = 0

    def _member(self, number: int) -> Origin:
        return self.origins[number % self.members]

    @rule(member=st.integers(0, 7))
    def crash(self, member: int) -> None:
        """A member is killed."""
        self._member(member).crash()
        self._trouble(member)

    @rule(member=st.integers(0, 7))
    def fall_sick(self, member: int) -> None:
        """A member's health check fails; it still answers."""
        self._member(member).on(self.health_path, 503)
        self.blocks.timeline.note(self._member(member).name, "falls sick")
        self._trouble(member)

    def _trouble(self, member: int) -> None:
        self.troubled.setdefault(member % self.members, self.now)
        self.unsettled = self.now

    @precondition(lambda self: self.troubled)
    @rule(data=st.data())
    def recover(self, data: Any) -> None:
        """A member is well again."""
        number = data.draw(st.sampled_from(sorted(self.troubled)), label="member")
        self.origins[number].on(self.health_path, 200)
        self.run(self.origins[number].recover())
        del self.troubled[number]
        self.unsettled = self.now

    @rule(member=st.integers(0, 7), line=strategies.fault_lines())
    def fault(self, member: int, line: str) -> None:
        """A member will fail some requests."""
        self.arm(self._member(member).fault, line)

    @rule()
    def let_it_be_known(self) -> None:
        """So much time passes that troubles have been detected, and clients ask."""
        self.time_passes(self.detects)
        self.run(self._ask_many(self.members))

    @rule(method=st.integers(0, 7), path=st.integers(0, 7))
    def ask(self, method: int, path: int) -> None:
        """A client asks, and waits for the answer."""
        self.run(self._ask(self.methods[method % len(self.methods)], self.paths[path % len(self.paths)]))

    @rule(count=st.integers(2, 20))
    def ask_at_once(self, count: int) -> None:
        """So many clients ask together."""
        self.run(self._ask_many(count))

    async def _ask_many(self, count: int) -> None:
        asks = (self._ask(self.methods[n % len(self.methods)], self.paths[n % len(self.paths)]) for n in range(count))
        await asyncio.gather(*asks)

    async def _ask(self, method: str, path: str) -> None:
        self.count += 1
        asked = Asked(self.count, method, path, self.now)
        calm = self._calm()
        avoided = self._avoided()
        host = self.front.url.partition("://")[2]
        request = Request(method, path, {"host": host, ID: str(asked.number)}, b"x" if method == "POST" else b"")
        response = None
        try:
            response = await self.client(request)
            await response.read()
            asked.status = response.status
        except Failure as failure:
            asked.error = failure.reason
        self.blocks.timeline.note("client", f"{method} {path} #{asked.number} -> {asked.status or asked.error}")
        if self.now - asked.at > self.patience:
            self.fail(f"{asked} took {self.now - asked.at:g} s")
        if calm and not 0 < asked.status < 500:
            self.fail(f"every member was well, and {asked} failed")
        self._compare(asked, response, avoided)

    def _calm(self) -> bool:
        """Whether nothing may go wrong: all are well for long enough, and no fault is armed."""
        armed = any(origin.fault.rules for origin in self.origins)
        if armed:
            self.unsettled = self.now
        return not self.troubled and not armed and self.now - self.unsettled >= self.detects

    def _avoided(self) -> list[Origin]:
        """Members in trouble for so long that it is known, when there are others that are well for as long."""
        well = [origin for number, origin in enumerate(self.origins) if number not in self.troubled]
        if not well or any(origin.fault.rules for origin in well):
            return []
        if self.now - self.unsettled < self.detects:
            return []
        return [self.origins[number] for number in self.troubled]

    def _compare(self, asked: Asked, response: Response | None, avoided: list[Origin]) -> None:
        """What the client saw against the journals."""
        number = str(asked.number)
        met = {
            origin.name: [entry for entry in origin.journal if entry.headers.get(ID) == number]
            for origin in self.origins
        }
        for origin in avoided:
            if met[origin.name]:
                self.fail(f"{asked} went to {origin.name}, which is in trouble for {self.now - self.unsettled:g} s")
        total = sum(len(entries) for entries in met.values())
        if asked.method in self.once and total > 1:
            self.fail(
                f"{asked} reached the members {total} times: {[entry for found in met.values() for entry in found]}"
            )
        if response is not None:
            teller = response.headers.get("x-member")
            if teller is not None and not any(entry.status == asked.status for entry in met.get(teller, ())):
                self.fail(f"{asked} is an answer of {teller}, whose journal does not have it")
            self.check(asked, response)


def _by_name(name: str) -> Any:
    async def answer(request: Request) -> Response:
        return Response.text(name, 200, {"x-member": name})

    return answer
