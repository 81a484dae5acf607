from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError, Unavailable
from blocks.gateway.consumer import Consumer
from blocks.gateway.idempotency import Idempotency, Settings
from blocks.gateway.idempotency.rules import fingerprint, read_key, record_key
from blocks.gateway.records import DiskRecords, MemoryRecords, Records, StoreDown
from blocks.http.body import Stream
from blocks.http.message import Request, Response
from gateway.gateway_kit import context, until

JSON = {"content-type": "application/json"}


@pytest.fixture(params=["memory", "disk"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    clock = FakeClock()
    if request.param == "memory":
        yield MemoryRecords(clock=clock), clock
        return
    async with DiskRecords(tmp_path / "records.db", clock=clock) as disk:
        yield disk, clock


async def test_every_store_keeps_the_promises(records: tuple[Records, FakeClock]) -> None:
    store, clock = records
    assert await store.add(b"k", b"1", 10) is None
    assert await store.add(b"k", b"2", 10) == b"1"
    assert await store.get(b"k") == b"1"
    assert not await store.swap(b"k", b"2", b"3", 10)
    assert await store.swap(b"k", b"1", b"3", 20)
    clock.advance(15)
    assert await store.get(b"k") == b"3"
    assert not await store.drop(b"k", b"1")
    assert await store.drop(b"k", b"3")
    assert await store.get(b"k") is None
    assert await store.add(b"k", b"4", 10) is None
    clock.advance(10)
    assert await store.get(b"k") is None
    assert not await store.swap(b"k", b"4", b"5", 10)
    assert not await store.drop(b"k", b"4")
    assert await store.add(b"k", b"5", 10) is None


async def test_one_of_many_adds_wins(records: tuple[Records, FakeClock]) -> None:
    store, _ = records
    outcomes = await asyncio.gather(*(store.add(b"k", b"%d" % n, 10) for n in range(20)))
    assert outcomes.count(None) == 1


async def test_a_full_memory_refuses_and_forgets_only_what_has_expired() -> None:
    clock = FakeClock()
    store = MemoryRecords(room=1000, clock=clock)
    for n in range(4):
        await store.add(b"%d" % n, b"x", 10)
    with pytest.raises(StoreDown):
        await store.add(b"new", b"x", 10)
    clock.advance(10)
    assert await store.add(b"new", b"x", 10) is None
    assert len(store) == 1
    assert store.used == 204


async def test_the_disk_outlives_the_process(tmp_path: Path) -> None:
    async with DiskRecords(tmp_path / "r.db") as first:
        await first.add(b"k", b"v", 60)
    async with DiskRecords(tmp_path / "r.db") as second, DiskRecords(tmp_path / "r.db") as third:
        assert await second.get(b"k") == b"v"
        assert await third.swap(b"k", b"v", b"w", 60)
        assert await second.get(b"k") == b"w"
    with pytest.raises(StoreDown):
        await DiskRecords(tmp_path / "none" / "r.db").__aenter__()


class Service:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return (
            answer
            if isinstance(answer, Response)
            else Response(201, {**JSON, "location": f"/{self.calls}"}, json.dumps(answer).encode())
        )


def made(clock: FakeClock | None = None, records: Records | None = None, **settings: Any) -> Idempotency:
    return Idempotency(
        Settings(**settings), MemoryRecords(clock=clock or FakeClock()) if records is None else records, "r"
    )


async def send(
    step: Idempotency,
    service: Service,
    body: bytes = b"{}",
    *,
    key: str = '"k1"',
    who: str = "",
    target: str = "/pay",
    method: str = "POST",
) -> Response:
    request = Request(method, target, {**JSON, **({"idempotency-key": key} if key else {})}, body)
    return await step.around(request, context(consumer=Consumer(who) if who else None), service)


async def test_the_answer_is_replayed_and_the_service_asked_once() -> None:
    step, service = made(), Service({"n": 1})
    first = await send(step, service)
    again = await send(step, service, key="k1")
    assert (first.status, first.body, first.headers["location"]) == (
        again.status,
        again.body,
        again.headers["location"],
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert service.calls == 1
    await send(step, service, key="k2")
    await send(step, service, who="alice")
    await send(step, service, who="bob")
    assert service.calls == 4


async def test_another_request_under_the_same_key_is_422() -> None:
    step, service = made(), Service({})
    await send(step, service)
    for changed in (await send(step, service, b'{"other":1}'), await send(step, service, target="/pay?x=1")):
        assert changed.status == 422
        assert changed.headers["content-type"] == "application/problem+json"
    assert service.calls == 1


async def test_without_a_key_a_request_runs_unless_one_is_required() -> None:
    service = Service({})
    assert (await send(made(), service, key="")).status == 201
    required = made(required=True, docs="https://docs.example/keys")
    missing = await send(required, service, key="")
    assert missing.status == 400
    assert json.loads(missing.body)["type"] == "https://docs.example/keys"
    assert (await send(required, service, key="", method="GET")).status == 201
    for bad in ("a b", '""', '"unclosed', "x" * 256, '"' + "x" * 256 + '"', '"a"; p=1'):
        assert (await send(required, service, key=bad)).status == 400
    assert service.calls == 2


async def test_concurrent_duplicates_wait_for_the_first() -> None:
    step, service = made(), Service({"n": 1})
    service.gate = asyncio.Event()
    running = [asyncio.ensure_future(send(step, service)) for _ in range(20)]
    await until(lambda: [len(waiting) for waiting in step._waiting.values()] == [19])
    service.gate.set()
    answers = await asyncio.gather(*running)
    assert service.calls == 1
    assert {bytes(answer.body) for answer in answers} == {b'{"n": 1}'}
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 19
    assert not step._waiting


async def test_a_duplicate_that_waited_long_enough_gets_409() -> None:
    step, service = made(wait=0.02), Service({})
    service.gate = asyncio.Event()
    first = asyncio.ensure_future(send(step, service))
    await until(lambda: service.calls > 0)
    second = await send(step, service)
    assert second.status == 409
    assert second.headers["retry-after"] == "1"
    service.gate.set()
    assert (await first).status == 201


async def test_a_client_that_leaves_does_not_stop_the_effect() -> None:
    step, service = made(), Service({"n": 1})
    service.gate = asyncio.Event()
    first = asyncio.ensure_future(send(step, service))
    await until(lambda: service.calls > 0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    service.gate.set()
    again = await send(step, service)
    assert again.headers["idempotent-replayed"] == "true"
    assert service.calls == 1


@pytest.mark.parametrize(("answer", "calls"), [
    (Response(500), 2), (Response(503), 2), (Response(429), 2), (Response(404), 1), (Response(400), 1), (Unavailable("down"), 2),
])  # fmt: skip
async def test_what_settles_nothing_may_be_tried_again(answer: Any, calls: int) -> None:
    step, service = made(), Service(answer, {"n": 1})
    try:
        assert (await send(step, service)).status == answer.status
    except Unavailable:
        pass
    again = await send(step, service)
    assert service.calls == calls
    assert again.status == (201 if calls == 2 else answer.status)


async def test_errors_are_kept_where_asked() -> None:
    step, service = made(errors=True), Service(Response(500), {})
    await send(step, service)
    assert (await send(step, service)).status == 500


def stream(*chunks: bytes, length: int | None = None) -> Stream:
    body = Stream(length=length)
    for chunk in chunks:
        body.feed(chunk)
    body.finish()
    return body


async def test_streams_are_kept_when_small_and_flow_on_when_not() -> None:
    step, service = made(max_answer=10), Service(Response(200, {}, stream(b"small", b"er")))
    assert (await send(step, service)).body == b"smaller"
    assert (await send(step, service)).body == b"smaller"
    for large in (stream(b"123456", b"123456", b"x"), stream(b"1234567890123", length=13)):
        service = Service(Response(200, {}, large))
        step = made(max_answer=10)
        first = await send(step, service)
        assert len(await first.read()) == 13
        assert (await send(step, service)).status == 409
        assert service.calls == 1
    events = Service(Response(200, {"content-type": "text/event-stream"}, Stream()))
    assert isinstance((await send(made(), events)).body, Stream)


async def test_a_key_lasts_its_time_and_a_dead_gateways_lease_ends() -> None:
    clock = FakeClock()
    step, service = made(clock, ttl=60), Service({})
    await send(step, service)
    clock.advance(60)
    await send(step, service)
    assert service.calls == 2
    other = made(clock, records=step._records)
    service.gate = asyncio.Event()
    dead = asyncio.ensure_future(send(other, service, key="dead"))
    await until(lambda: service.calls >= 3)
    clock.advance(31)
    service.gate = None
    assert (await send(step, service, key="dead")).status == 201
    assert service.calls == 4
    dead.cancel()
    async with other:
        pass
    await asyncio.gather(dead, return_exceptions=True)
    assert (await send(step, service, key="dead")).headers["idempotent-replayed"] == "true"


class Down(MemoryRecords):
    async def add(self, key: bytes, value: bytes, ttl: float) -> bytes | None:
        raise StoreDown("down")


async def test_a_store_that_is_down_is_said_or_passed() -> None:
    service = Service({})
    refused = await send(made(records=Down()), service)
    assert (refused.status, service.calls) == (503, 0)
    assert (await send(made(records=Down(), on_error="pass"), service)).status == 201
    with pytest.raises(ConfigError):
        made(on_error="maybe")


async def test_duplicates_at_another_gateway_wait_too() -> None:
    shared = MemoryRecords()
    one, two, service = made(records=shared), made(records=shared), Service({"n": 1})
    service.gate = asyncio.Event()
    first = asyncio.ensure_future(send(one, service))
    await until(lambda: service.calls > 0)
    second = asyncio.ensure_future(send(two, service))
    await asyncio.sleep(0)
    service.gate.set()
    assert (await first).body == (await second).body
    assert service.calls == 1


def test_keys_and_marks() -> None:
    assert read_key(b'"a \\" b"') == 'a " b'
    assert read_key(b"8e03978e-40d5-43dd-bc93-6894a57f9324") == "8e03978e-40d5-43dd-bc93-6894a57f9324"
    assert record_key("r", "a", "bc") != record_key("r", "ab", "c")
    assert fingerprint("POST", "/a", b"x", b"") != fingerprint("POST", "/a", None, b"x")


async def test_too_large_bodies_are_refused() -> None:
    assert (await send(made(max_body=5), Service({}), b"123456")).status == 413


async def test_a_long_request_keeps_its_key() -> None:
    swaps = 0

    class Counted(MemoryRecords):
        async def swap(self, key: bytes, old: bytes, new: bytes, ttl: float) -> bool:
            nonlocal swaps
            swaps += old == new
            if swaps == 1:
                raise StoreDown("for a moment")
            return await super().swap(key, old, new, ttl)

    step, service = made(records=Counted(), lease=0.15), Service({"n": 1})
    service.gate = asyncio.Event()
    first = asyncio.ensure_future(send(step, service))
    await until(lambda: swaps >= 5)
    assert (await send(step, service, b"other")).status == 422
    service.gate.set()
    assert (await first).status == 201
    assert (await send(step, service)).headers["idempotent-replayed"] == "true"
