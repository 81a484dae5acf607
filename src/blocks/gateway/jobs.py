"""Long work is answered with 202 at once: the request runs on behind a status resource that can be asked and cancelled.

``POST /reports`` → 202, ``Location: /reports/jobs/ID``; ``GET`` of that → its state; ``GET …/result`` → the service's answer;
``DELETE`` cancels (RFC 9110 §15.3.3; the "asynchronous request-reply" of Azure's and Google's API guides).
"""

from __future__ import annotations

import asyncio
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import below
from blocks.core.config.kinds import Duration, Size
from blocks.core.errors import ConfigError, Failure
from blocks.core.quantities import seconds, size
from blocks.http.body import Stream
from blocks.http.handler import Handler
from blocks.http.message import Request, Response

from .context import Context, context_of
from .idempotency.answer import whole
from .idempotency.rules import kept_fields
from .job import CANCELLED, DONE, ENDED, FAILED, RUNNING, Job, new_id, pack, unpack, wanted_wait
from .ownership import owner_of
from .problem import problem
from .records import MemoryRecords, Records, StoreDown, make_records

if TYPE_CHECKING:
    from .site import Site

MAX_RUNNING = 100
MAX_PER_CONSUMER = 10
TIMEOUT = 900.0  # seconds a job may run; AWS Lambda's 15 min
TTL = 3600.0  # seconds a result is kept
LEASE = 30.0  # seconds of silence after which a job counts as lost
MAX_ANSWER = 8 * 1024 * 1024
MAX_BODY = 1024 * 1024


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``service`` does the work; ``store`` as for idempotency; ``segment``: the path segment under which jobs are found.

    ``max_wait``: the longest ``Prefer: wait=N`` that is honoured; then a quick answer comes without a 202.
    """

    service: Any
    store: str = "memory"
    segment: str = "jobs"
    methods: tuple[str, ...] = ("POST",)
    timeout: Duration = TIMEOUT
    ttl: Duration = TTL
    lease: Duration = LEASE
    max_running: int = MAX_RUNNING
    max_per_consumer: int = MAX_PER_CONSUMER
    max_body: Size = MAX_BODY
    max_answer: Size = MAX_ANSWER
    max_wait: Duration = 0.0
    room: Size = "256MiB"


class Jobs:
    """The handler that turns a slow ``service`` into jobs. As an async context manager it gives up its jobs when it stops."""

    name = "jobs"

    def __init__(self, service: Handler, settings: Settings, records: Records, clock: Clock = SYSTEM) -> None:
        with below("segment"):
            if not settings.segment.isalnum():
                raise ConfigError(f"segment is {settings.segment!r}; it is one word of a path")
        self._service = service
        self._records = records
        self.parts = (service, records)
        self._clock = clock
        self._segment = settings.segment
        self._methods = frozenset(method.upper() for method in settings.methods)
        self._timeout, self._ttl, self._lease = (
            seconds(settings.timeout),
            seconds(settings.ttl),
            seconds(settings.lease),
        )
        self._max_wait = seconds(settings.max_wait)
        self._max_running, self._max_each = settings.max_running, settings.max_per_consumer
        self._max_body, self._max_answer = size(settings.max_body), size(settings.max_answer)
        self._running: dict[str, tuple[asyncio.Task[None], str]] = {}
        self.started = self.failed = self.refused = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [task for task, _ in self._running.values()]
        for task in running:
            task.cancel("the gateway stopped")
        await asyncio.gather(*running, return_exceptions=True)

    async def __call__(self, request: Request) -> Response:
        """Start a job, or tell of one."""
        context = context_of(request)
        base, words = self._place(context)
        owner = owner_of(context.consumer)
        try:
            if words is None:
                return await self._start(request, base, owner)
            return await self._known(request.method, base, words, owner)
        except StoreDown as error:
            return problem(
                503,
                "Service Unavailable",
                "jobs cannot be kept now",
                headers=((b"retry-after", b"1"),),
                reason=error.reason,
            )

    def figures(self) -> dict[str, int]:
        """Counters for the metrics."""
        return {"started": self.started, "failed": self.failed, "refused": self.refused}

    def _place(self, context: Context) -> tuple[str, list[str] | None]:
        """The path under which jobs are, and what follows it: [id] or [id, "result"]; None for a request to the service."""
        template = context.route.template
        path = context.path
        if template.rest is not None:
            rest = str(context.params[template.rest])
            base = path[: len(path) - len(rest)].rstrip("/") if rest else path.rstrip("/")
        else:
            base = template.text.rstrip("/")
        words = path[len(base) :].strip("/").split("/")
        if words[0] == self._segment and len(words) in (2, 3) and words[2:] in ([], ["result"]):
            return f"{base}/{self._segment}", words[1:]
        return f"{base}/{self._segment}", None

    # -- starting

    async def _start(self, request: Request, base: str, owner: str) -> Response:
        if request.method not in self._methods:
            allow = ", ".join(sorted(self._methods)).encode()
            return problem(405, "Method Not Allowed", "this starts a job", headers=((b"allow", allow),))
        own = sum(1 for _, other in self._running.values() if other == owner)
        if len(self._running) >= self._max_running or (owner and own >= self._max_each):
            self.refused += 1
            status, title = (
                (429, "Too Many Requests") if len(self._running) < self._max_running else (503, "Service Unavailable")
            )
            return problem(status, title, "too many jobs are running", headers=((b"retry-after", b"10"),))
        body = await request.read(self._max_body)
        if len(body) > self._max_body:
            return problem(413, "Content Too Large", f"a body of more than {self._max_body} bytes is not taken")
        now = self._clock.wall()
        job = Job(new_id(), owner, RUNNING, now, now)
        await self._records.add(job.id.encode(), pack(job), self._timeout + self._ttl)
        task = asyncio.get_running_loop().create_task(self._run(job, _detached(request)))
        self._running[job.id] = (task, owner)
        task.add_done_callback(lambda _: self._running.pop(job.id, None))
        self.started += 1
        await asyncio.sleep(0)  # a task that never began could not say how it ended
        wait = wanted_wait(request.headers.find(b"prefer"))
        if wait and self._max_wait:
            await asyncio.wait([task], timeout=min(wait, self._max_wait))
            ended = await self._find(job.id, owner)
            if ended is not None and ended.state == DONE:
                return ended.result()
        response = Response.json(job.told(base, now, self._lease), 202)
        response.headers.replace(
            (), ((b"location", f"{base}/{job.id}".encode()), (b"retry-after", b"1"), (b"cache-control", b"no-store"))
        )
        return response

    async def _run(self, job: Job, request: Request) -> None:
        beat = asyncio.get_running_loop().create_task(self._beat(job, asyncio.current_task()))
        ended = Job(job.id, job.owner, FAILED, job.created, job.beat)
        try:
            async with asyncio.timeout(self._timeout):
                response, body = await whole(await self._service(request), self._max_answer)
                if body is None:
                    if isinstance(response.body, Stream):
                        response.discard()
                    ended.reason = "the answer is too large to be kept"
                else:
                    ended.state, ended.status, ended.body = DONE, response.status, body
                    ended.fields = kept_fields(response.headers)
        except TimeoutError:
            ended.reason = "timeout"
        except Failure as error:
            ended.reason = error.reason
        except asyncio.CancelledError as error:
            ended.state = CANCELLED if "asked" in str(error) else FAILED
            ended.reason = str(error)
        except Exception:
            ended.reason = "internal"
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
        self.failed += ended.state == FAILED
        await self._end(ended)

    async def _end(self, ended: Job) -> None:
        """Keep the outcome; a flag that somebody set meanwhile does not get in the way."""
        ended.beat = self._clock.wall()
        key = ended.id.encode()
        for _ in range(5):
            there = await self._records.get(key)
            if there is None or await self._records.swap(key, there, pack(ended), self._ttl):
                return

    async def _beat(self, job: Job, runner: asyncio.Task[Any] | None) -> None:
        """Say every third of the lease that the job lives, and stop it when it was cancelled elsewhere."""
        key = job.id.encode()
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                there = await self._records.get(key)
                if there is None or unpack(there).cancel:
                    if runner is not None:
                        runner.cancel("cancelled as asked")
                    return
                job.beat = self._clock.wall()
                await self._records.swap(key, there, pack(job), self._timeout + self._ttl)
            except StoreDown:
                continue

    # -- asking

    async def _find(self, id: str, owner: str) -> Job | None:
        there = await self._records.get(id.encode())
        job = None if there is None else unpack(there)
        return job if job is not None and job.owner == owner else None

    async def _known(self, method: str, base: str, words: list[str], owner: str) -> Response:
        job = await self._find(words[0], owner)
        if job is None:
            return problem(404, "Not Found", "there is no such job, or its result is kept no longer")
        if method == "DELETE" and len(words) == 1:
            return await self._cancel(job, base)
        if method not in ("GET", "HEAD"):
            allow = b"GET, DELETE" if len(words) == 1 else b"GET"
            return problem(405, "Method Not Allowed", "a job can be asked and cancelled", headers=((b"allow", allow),))
        now = self._clock.wall()
        if len(words) == 2:
            if job.state == DONE:
                return job.result()
            return problem(409, "Conflict", "the job has no result", state=job.seen(now, self._lease))
        response = Response.json(job.told(base, now, self._lease))
        response.headers.replace(
            (), ((b"cache-control", b"no-store"), *(((b"retry-after", b"1"),) if job.state == RUNNING else ()))
        )
        return response

    async def _cancel(self, job: Job, base: str) -> Response:
        key = job.id.encode()
        if job.state in ENDED:
            await self._records.drop(key, pack(job))
            return Response(204)
        running = self._running.get(job.id)
        if running is not None:
            running[0].cancel("cancelled as asked")
            await asyncio.wait([running[0]], timeout=self._lease)
            return Response(204)
        flagged = msgspec.structs.replace(job, cancel=True)
        if not await self._records.swap(key, pack(job), pack(flagged), self._timeout + self._ttl):
            return problem(409, "Conflict", "the job has just changed; ask again", headers=((b"retry-after", b"1"),))
        return Response.json(flagged.told(base, self._clock.wall(), self._lease), 202)


def _detached(request: Request) -> Request:
    """The request without its client: no deadline of it, no interim answers to it."""
    twin = request.copy()
    twin.deadline = inf
    twin.inform = None
    twin.headers.remove("prefer")
    return twin


def handler(settings: Any, site: Site) -> Jobs:
    """The handler of a route's ``jobs``. Raises ``ConfigError``."""
    if not isinstance(settings, Settings):
        raise ConfigError("jobs is a table with service")
    template = site.route.template
    if template.rest is None and not template.prefix:
        raise ConfigError("a route of jobs takes the paths below it: end its template with {rest:path}")
    with below("service"):
        service = site.service(settings.service) if isinstance(settings.service, str) else settings.service
    with below("store"):
        records = make_records(settings.store, site, purpose="jobs", room=size(settings.room))
    return Jobs(service, settings, records, site.clock)


def jobs(service: Handler, *, records: Records | None = None, clock: Clock = SYSTEM, **settings: Any) -> Jobs:
    """Jobs in code: ``route("/reports/{rest:path}", jobs(slow, timeout="15m"))``. Raises ``ConfigError``."""
    return Jobs(
        service,
        Settings(service=service, **settings),
        MemoryRecords(clock=clock) if records is None else records,
        clock,
    )
