"""A table row is a conversation: what clients ask, what the origin says when it is asked, and what the clients then have to see."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from blocks.core.clock import FakeClock
from blocks.core.errors import Failure, UpstreamFault
from blocks.edge import Edge
from blocks.edge.dates import format_date
from blocks.http import Request, Response

Fields = tuple[tuple[str, Any], ...]


@dataclass
class Turn:
    """One exchange. ``kind``: origin, cached, validated, any; a ``pause`` lets time pass before it."""

    kind: str
    method: str = "GET"
    target: str = "/x"
    ask: Fields = ()
    give: Fields = ()
    status: int = 200
    body: bytes = b"body"
    sees: Fields = ()
    misses: tuple[str, ...] = ()
    sees_status: int | None = None
    sees_body: bytes | None = None
    sent: Fields = ()
    fails: bool = False
    pause: float = 0.0
    upload: bytes = b""


def origin(*give: tuple[str, Any], **more: Any) -> Turn:
    """The origin is asked and answers with those fields."""
    return Turn("origin", give=give, **more)


def cached(*ask: tuple[str, str], **more: Any) -> Turn:
    """A client asks with those fields and is answered from the store."""
    return Turn("cached", ask=ask, **more)


def validated(*give: tuple[str, Any], **more: Any) -> Turn:
    """The origin is asked on a condition and answers 304 with those fields."""
    return Turn("validated", give=give, **more)


@dataclass
class Stage:
    """An edge before a scripted origin, under a clock of its own."""

    profile: str = "rfc"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.turn: Turn | None = None
        self.asked: list[Request] = []
        self.edge = Edge(
            self.origin,
            "8MiB",
            profile=self.profile,
            clock=self.clock,
            random=Random(7),
            **{"ttl_jitter": 0, **self.options},
        )

    def dated(self, fields: Fields) -> list[tuple[str, str]]:
        """Fields whose value is a number hold the date that many seconds from now."""
        return [
            (name, format_date(self.clock.wall() + value).decode() if isinstance(value, int) else value)
            for name, value in fields
        ]

    async def origin(self, request: Request) -> Response:
        turn = self.turn
        assert turn is not None
        self.asked.append(request)
        if turn.fails:
            raise UpstreamFault("the origin closed the connection")
        status = turn.status
        if turn.kind == "validated":
            conditional = request.headers.find(b"if-none-match") or request.headers.find(b"if-modified-since")
            status = 304 if conditional else 999
        fields = [*self.dated(turn.give), ("x-asked", str(len(self.asked)))]
        return Response(status, fields, b"" if status == 304 or request.method == "HEAD" else turn.body)

    async def play(self, turn: Turn) -> Response | Failure:
        """One exchange, its answer read to the end."""
        self.clock.advance(turn.pause)
        self.turn = turn
        before = len(self.asked)
        request = Request(turn.method, turn.target, [("host", "site"), *self.dated(turn.ask)], turn.upload)
        answer: Response | Failure
        try:
            answer = await self.edge(request)
            await answer.read()
        except Failure as failure:
            answer = failure
        asked = len(self.asked) - before
        self.check(turn, answer, asked)
        return answer

    def check(self, turn: Turn, answer: Response | Failure, asked: int) -> None:
        if turn.kind == "cached":
            assert asked == 0 or turn.fails, "it came from the origin"
        elif turn.kind in ("origin", "validated"):
            assert asked >= 1, "it came from the store"
        if turn.kind == "validated":
            assert not isinstance(answer, Failure)
            assert answer.status != 999, "the origin was not asked on a condition"
        for name, value in turn.sent:
            assert self.asked[-1].headers.get(name) == value
        if isinstance(answer, Failure):
            assert turn.sees_status is not None, f"unexpected {answer!r}"
            assert answer.status == turn.sees_status
            return
        if turn.sees_status is not None:
            assert answer.status == turn.sees_status
        for name, value in turn.sees:
            seen = answer.headers.get(name)
            if callable(value):
                assert value(seen), f"{name}: {seen}"
            else:
                assert seen == value
        for name in turn.misses:
            assert name not in answer.headers
        if turn.sees_body is not None:
            assert answer.body == turn.sees_body


async def perform(turns: list[Turn], profile: str = "rfc", **options: Any) -> Stage:
    """Play a row; the stage for more looks."""
    stage = Stage(profile, options)
    for turn in turns:
        await stage.play(turn)
    return stage
