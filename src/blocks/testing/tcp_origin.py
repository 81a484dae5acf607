"""A scripted TCP origin: what it expects, what it says, and when it hangs up, on a real socket, with a journal and faults."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import cast

from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds

from .door import Door
from .faults import Faults
from .gate import Gate
from .timeline import Timeline
from .transcript import Mismatch, Step, heard, parse

LARGEST = 16 * 1024 * 1024  # bytes that a conversation holds of what nobody has expected yet
KEPT = 10_000  # conversations

Talk = Callable[["Conversation"], Awaitable[None]]
Script = str | Talk


class Conversation:
    """One connection: what was ``received`` and ``sent`` so far, and ``problem``: why it went otherwise than the script ("" if it did not).

    A script that is an async function has it as its argument: ``await talk.expect(b"PING\\r\\n"); talk.send(b"PONG\\r\\n")``.
    """

    def __init__(self, number: int, at: float) -> None:
        self.number = number
        self.at = at
        self.received = bytearray()
        self.sent = bytearray()
        self.problem = ""
        self.done = False  # the script came to its end
        self._taken = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._gate: Callable[[], Gate | None] = lambda: None
        self._transport: asyncio.Transport | None = None

    async def expect(self, what: bytes | str | int | re.Pattern[bytes]) -> bytes:
        """Wait for these bytes, so many bytes, or what the pattern matches, and return them. Raises ``Mismatch``."""
        wanted = re.compile(b".{%d}" % what, re.DOTALL) if isinstance(what, int) else what
        plain = wanted.encode() if isinstance(wanted, str) else wanted
        while True:
            waiting = self.received[self._taken :]
            count = heard(plain, waiting)
            if count is not None:
                self._taken += count
                return bytes(waiting[:count])
            if self._ended:
                raise Mismatch(f"expected {_shown(plain)}, got {bytes(waiting[:200])!r} and the end")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def send(self, data: bytes | str) -> None:
        """Say it."""
        data = data.encode() if isinstance(data, str) else data
        self.sent += data
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def wait(self, time: float | str) -> None:
        """Say nothing for so long, on the loop's clock."""
        await asyncio.sleep(seconds(time))

    def close(self) -> None:
        """Hang up, in order (FIN)."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Hang up with RST."""
        gate = self._gate()
        if gate is not None:
            gate.reset()

    @property
    def unexpected(self) -> bytes:
        """What was received and not expected yet."""
        return bytes(self.received[self._taken :])

    def _heard(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __str__(self) -> str:
        state = self.problem or ("done" if self.done else "under way")
        return f"conversation {self.number}: {len(self.received)} B in, {len(self.sent)} B out, {state}"


class TcpOrigin(Door):
    """Follows a script on each connection: the first one's the first, and so on; the last is for all that come later.

    A script is a transcript (see ``transcript``), or an async function of a ``Conversation``. ``journal`` holds the conversations;
    ``verify`` raises if one went otherwise. Faults strike connections: ``origin.fault.next(1).reset()``.
    """

    def __init__(
        self, *scripts: Script, name: str = "tcp-origin", random: Random | None = None, timeline: Timeline | None = None
    ) -> None:
        super().__init__(name, Faults(random, requests=False), timeline)
        if not scripts:
            raise ConfigError(
                "a TCP origin needs a script; give a transcript such as 'expect PING\\r\\n' or a function"
            )
        self._scripts: list[Talk] = [
            _follow(parse(script)) if isinstance(script, str) else script for script in scripts
        ]
        self._journal: deque[Conversation] = deque(maxlen=KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    @property
    def journal(self) -> list[Conversation]:
        """The conversations so far, in the order in which they began."""
        return list(self._journal)

    def verify(self) -> None:
        """Raise ``Mismatch`` for the first conversation that went otherwise than its script."""
        for talk in self._journal:
            if talk.problem:
                raise Mismatch(f"{self.name}, {talk}")

    def inner(self) -> asyncio.Protocol:
        """The protocol of one connection."""
        self._count += 1
        script = self._scripts[min(self._count, len(self._scripts)) - 1]
        return _Line(self, Conversation(self._count, asyncio.get_running_loop().time()), script)

    async def stop(self) -> None:
        """Listen no more, and leave every conversation."""
        await super().stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, talk: Conversation, script: Talk) -> None:
        """A client has connected."""
        self._journal.append(talk)
        task = asyncio.get_running_loop().create_task(self._run(talk, script), name=f"{self.name} {talk.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, talk: Conversation, script: Talk) -> None:
        try:
            await script(talk)
            talk.done = True
        except Mismatch as error:
            talk.problem = str(error)
            talk.reset()
        except Exception as error:  # a script's own mistake: told where the test looks
            talk.problem = f"the script failed: {error!r}"
            talk.reset()
        self.note(talk)


class _Line(asyncio.Protocol):
    """The socket's side of a conversation."""

    def __init__(self, origin: TcpOrigin, talk: Conversation, script: Talk) -> None:
        self._origin = origin
        self._talk = talk
        self._script = script

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        client = transport.get_extra_info("peername")
        self._talk._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._talk._gate = lambda: self._origin.gate((client[0], client[1]))
        self._origin.begin(self._talk, self._script)

    def data_received(self, data: bytes) -> None:
        """It says something."""
        talk = self._talk
        talk.received += data
        talk._heard()
        if len(talk.received) - talk._taken > LARGEST and talk._transport is not None:
            talk._transport.abort()

    def eof_received(self) -> bool:
        """It says no more; what the script still says goes out."""
        self._talk._ended = True
        self._talk._heard()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._talk._ended = True
        self._talk._heard()


def _follow(steps: list[Step]) -> Talk:
    """A transcript as a script; at its end the connection stays open until the client leaves."""

    async def talk(conversation: Conversation) -> None:
        for step in steps:
            if step.verb == "expect":
                await conversation.expect(step.what)
            elif step.verb == "send":
                conversation.send(step.data)
            elif step.verb == "wait":
                await conversation.wait(step.delay)
            elif step.verb == "close":
                conversation.close()
            elif step.verb == "reset":
                conversation.reset()
            else:
                await asyncio.get_running_loop().create_future()

    return talk


def _shown(what: bytes | re.Pattern[bytes]) -> str:
    return repr(what) if isinstance(what, bytes) else f"/{what.pattern.decode('latin-1')}/"
