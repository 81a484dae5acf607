"""The step that makes repeated requests harmless: the first runs, the others wait for its answer, later ones get it again."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration, Size
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size
from blocks.gateway.context import Context
from blocks.gateway.ownership import owner_of
from blocks.gateway.problem import problem
from blocks.gateway.records import MemoryRecords, Records, StoreDown, make_records
from blocks.gateway.steps import Proceed
from blocks.http.body import Stream
from blocks.http.message import Request, Response

from .answer import whole
from .rules import (
    DONE,
    GONE,
    RUNNING,
    Record,
    fingerprint,
    kept_fields,
    pack,
    read_key,
    record_key,
    replay,
    settles,
    unpack,
)

if TYPE_CHECKING:
    from blocks.gateway.site import Site

TTL = 86400.0  # seconds a key is remembered; Stripe's 24 h
LEASE = 30.0  # seconds after which a key whose gateway died may be tried again
WAIT = 30.0  # seconds that a duplicate waits for the first one's answer
MAX_ANSWER = 1024 * 1024
MAX_BODY = 1024 * 1024
MAX_WAITING = 100  # duplicates of one key that wait; more get 409 at once
_POLL = (0.05, 0.5)  # seconds between looks at a record that another process works on: first and longest
_FIELD = b"idempotency-key"


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``required``: a request without a key gets 400. ``store``: ``memory``, ``disk:PATH`` or ``redis``. ``on_error`` of the store:
    ``refuse`` (503) or ``pass`` (run without the promise). ``errors``: keep 5xx answers too, as Stripe does; else they are tried again.
    """

    methods: tuple[str, ...] = ("POST", "PATCH")
    required: bool = False
    store: str = "memory"
    ttl: Duration = TTL
    wait: Duration = WAIT
    lease: Duration = LEASE
    max_body: Size = MAX_BODY
    max_answer: Size = MAX_ANSWER
    room: Size = "64MiB"
    errors: bool = False
    on_error: Literal["refuse", "pass"] = "refuse"
    docs: str = "about:blank"


class Idempotency:
    """The step of a route's ``idempotency``. ``docs`` is the problem type that tells clients about the field (the draft's §2.7)."""

    name = "idempotency"

    def __init__(self, settings: Settings, records: Records, route: str = "") -> None:
        if settings.on_error not in ("refuse", "pass"):
            raise ConfigError(f"on_error is {settings.on_error!r}; it can be refuse or pass")
        self._methods = frozenset(method.upper() for method in settings.methods)
        self._required = settings.required
        self._records = records
        self.parts = (records,)
        self._ttl, self._wait, self._lease = seconds(settings.ttl), seconds(settings.wait), seconds(settings.lease)
        self._max_body, self._max_answer = size(settings.max_body), size(settings.max_answer)
        self._errors = settings.errors
        self._pass = settings.on_error == "pass"
        self._docs = settings.docs
        self._route = route
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}
        self._running: set[asyncio.Task[Response]] = set()
        self.replayed = self.conflicts = self.unkept = 0

    async def around(self, request: Request, context: Context, proceed: Proceed) -> Response:
        """Run the request, wait for the one that runs, replay its answer, or refuse: 400, 409, 422, 503."""
        if request.method not in self._methods:
            return await proceed(request)
        value = request.headers.find(_FIELD)
        if value is None:
            if self._required:
                return problem(
                    400, "Idempotency-Key is missing", "this route asks for an Idempotency-Key", type=self._docs
                )
            return await proceed(request)
        key = read_key(value)
        if key is None:
            return problem(
                400, "Idempotency-Key is malformed", "a string of 1 to 255 characters is asked for", type=self._docs
            )
        body = await request.read(self._max_body)
        if len(body) > self._max_body:
            return problem(413, "Content Too Large", f"a body of more than {self._max_body} bytes is not taken")
        mark = fingerprint(request.method, request.target, request.headers.find(b"content-type"), body)
        mine = Record(RUNNING, secrets.token_hex(8), mark)
        try:
            return await self._settle(request, proceed, record_key(self._route, owner_of(context.consumer), key), mine)
        except StoreDown as error:
            if self._pass:
                return await proceed(request)
            return problem(
                503,
                "Service Unavailable",
                "the promise of one effect cannot be kept now",
                headers=((b"retry-after", b"1"),),
                reason=error.reason,
            )

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"replayed": self.replayed, "conflicts": self.conflicts, "unkept": self.unkept}

    async def __aenter__(self) -> Idempotency:
        return self

    async def __aexit__(self, *_: object) -> None:
        """What runs although its client has left is given up."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _settle(self, request: Request, proceed: Proceed, key: bytes, mine: Record) -> Response:
        loop = asyncio.get_running_loop()
        until = min(loop.time() + self._wait, request.deadline)
        pause = _POLL[0]
        while True:
            there = await self._records.add(key, pack(mine), self._lease)
            if there is None:
                return await self._lead(request, proceed, key, mine)
            record = unpack(there)
            if record.fingerprint != mine.fingerprint:
                self.conflicts += 1
                return problem(
                    422, "Idempotency-Key is already used", "the key was used for another request", type=self._docs
                )
            if record.state == DONE:
                self.replayed += 1
                return replay(record)
            if record.state == GONE:
                return problem(
                    409, "Conflict", "the request was carried out; its answer was too large to be kept", reason="unkept"
                )
            left = until - loop.time()
            if left <= 0 or len(self._waiting.get(key, ())) >= MAX_WAITING:
                self.conflicts += 1
                told = ((b"retry-after", b"1"),)
                return problem(
                    409, "Conflict", "a request with this key is still running", headers=told, type=self._docs
                )
            await self._look_again(key, min(left, pause if key not in self._waiting else left))
            pause = min(pause * 2, _POLL[1])

    async def _look_again(self, key: bytes, most: float) -> None:
        """Wait until the one that runs here is done, or ``most`` seconds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        handle = loop.call_later(most, _resolve, future)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(future)
        try:
            await future
        finally:
            handle.cancel()
            if waiting is not None and future in waiting:
                waiting.remove(future)

    async def _lead(self, request: Request, proceed: Proceed, key: bytes, mine: Record) -> Response:
        """Run it in a task of its own: a client that leaves does not stop what must have one outcome."""
        self._waiting.setdefault(key, [])
        task = asyncio.get_running_loop().create_task(self._run(request, proceed, key, mine))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_discard)
            raise

    async def _run(self, request: Request, proceed: Proceed, key: bytes, mine: Record) -> Response:
        packed = pack(mine)
        lease = _Lease(self._records, key, packed, self._lease)
        settled = False
        try:
            response = await proceed(request)
            if settles(response.status, errors=self._errors):
                response, kept = await self._kept(response, mine)
                await lease.end()
                settled = await self._records.swap(key, packed, pack(kept), self._ttl)
            return response
        finally:
            await lease.end()
            try:
                if not settled:
                    await self._records.drop(key, packed)
            except StoreDown:
                pass  # the lease ends by itself
            finally:
                for future in self._waiting.pop(key, ()):
                    _resolve(future)

    async def _kept(self, response: Response, mine: Record) -> tuple[Response, Record]:
        response, body = await whole(response, self._max_answer)
        if body is None:
            self.unkept += 1
            return response, Record(GONE, mine.owner, mine.fingerprint)
        return response, Record(
            DONE, mine.owner, mine.fingerprint, response.status, kept_fields(response.headers), body
        )


class _Lease:
    """Renews a running request's record every third of its time, so that only a dead gateway's ends; a timer, no task, until then."""

    __slots__ = ("_key", "_packed", "_records", "_seconds", "_task", "_timer")

    def __init__(self, records: Records, key: bytes, packed: bytes, seconds: float) -> None:
        self._records, self._key, self._packed, self._seconds = records, key, packed, seconds
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds / 3, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._hold())

    async def _hold(self) -> None:
        while True:
            try:
                await self._records.swap(self._key, self._packed, self._packed, self._seconds)
            except StoreDown:
                pass  # the next one may go through
            await asyncio.sleep(self._seconds / 3)

    async def end(self) -> None:
        self._timer.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _discard(task: asyncio.Task[Response]) -> None:
    """Nobody is there to take the answer."""
    if not task.cancelled() and task.exception() is None and isinstance(task.result().body, Stream):
        task.result().discard()


def step(settings: Any, site: Site) -> Idempotency | None:
    """The step of a route's ``idempotency``: True for the defaults, or a table. Raises ``ConfigError``."""
    if settings is False:
        return None
    if settings is True:
        settings = Settings()
    if not isinstance(settings, Settings):
        raise ConfigError("idempotency is true or a table")
    with below("store"):
        records = make_records(settings.store, site, purpose="idempotency", room=size(settings.room))
    return Idempotency(settings, records, site.route.name)


def in_memory(**settings: Any) -> Idempotency:
    """The step in code, with a store of its own."""
    return Idempotency(Settings(**settings), MemoryRecords())
