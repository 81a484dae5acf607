"""Virtual time: what waits is skipped, what is on its way is not overtaken."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from blocks import LoadBalancer, Request, Response, Upstream, running
from blocks.broker.log.disk import RealFile
from blocks.core.errors import UpstreamTimeout
from blocks.http import Server
from blocks.testing import Kit, LoopClock, VirtualLoop, until
from blocks.testing.patience import patience


def virtually(work):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def test_a_day_of_sleep_returns_at_once_and_took_exactly_a_day():
    async def work():
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(86_400 * 30)
        return loop.time() - began, loop.jumps

    passed, jumps = virtually(work())
    assert passed == 86_400 * 30
    assert jumps <= 31


def test_timers_fire_in_their_order_and_at_their_times():
    async def work():
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), []
        for delay in (3.0, 0.1, 2.5, 0.1 + 0.2, 7200.0):
            loop.call_later(delay, lambda d=delay: seen.append((d, round(loop.time() - began, 6))))
        await asyncio.sleep(7201)
        return seen

    assert virtually(work()) == [(0.1, 0.1), (0.1 + 0.2, 0.3), (2.5, 2.5), (3.0, 3.0), (7200.0, 7200.0)]


def test_thirty_seconds_of_delay_on_real_sockets_pass_in_real_milliseconds():
    async def slow(request: Request) -> Response:
        await asyncio.sleep(30)
        return Response.text("late")

    async def work():
        loop = asyncio.get_running_loop()
        async with Server(slow, "127.0.0.1:0") as server, Upstream(server.url, timeout=31) as client:
            began = loop.time()
            response = await client(Request("GET", "/"))
            assert await response.read() == b"late"
            return loop.time() - began

    assert virtually(work()) == 30.0


def test_a_timeout_that_is_due_still_fires():
    async def slow(request: Request) -> Response:
        await asyncio.sleep(30)
        return Response.text("late")

    async def work():
        async with Server(slow, "127.0.0.1:0") as server, Upstream(server.url, timeout=5) as client:
            with pytest.raises(UpstreamTimeout):
                await client(Request("GET", "/"))

    virtually(work())


def test_no_false_timeout_in_ten_thousand_requests_over_sockets():
    async def quick(request: Request) -> Response:
        await asyncio.sleep(30 if request.target == "/slow" else 0)
        return Response(200, None, b"x" * 3000)

    async def work():
        done = 0
        async with Server(quick, "127.0.0.1:0") as server, Upstream(server.url, timeout=31) as client:

            async def ask(count: int) -> None:
                nonlocal done
                for number in range(count):
                    # a deadline one sweep away: any answer that a jump overtakes would miss it
                    target = "/slow" if number % 10 == 0 else "/quick"
                    request = Request("GET", target)
                    request.deadline = asyncio.get_running_loop().time() + (31 if target == "/slow" else 0.05)
                    response = await client(request)
                    assert len(await response.read()) == 3000
                    done += 1

            await asyncio.gather(*(ask(200) for _ in range(50)))
        return done

    assert virtually(work()) == 10_000


def test_bodies_larger_than_any_buffer_arrive_before_the_clock_moves():
    async def large(request: Request) -> Response:
        return Response(200, None, b"y" * 8_000_000)

    async def work():
        loop = asyncio.get_running_loop()
        async with Server(large, "127.0.0.1:0") as server, Upstream(server.url, timeout=1) as client:
            loop.call_later(3600, lambda: None)
            began = loop.time()
            for _ in range(5):
                response = await client(Request("GET", "/"))
                assert len(await response.read()) == 8_000_000
            return loop.time() - began

    assert virtually(work()) < 1.0


def test_time_keeps_its_real_pace_while_an_executor_is_at_work():
    release = threading.Event()

    async def work():
        loop = asyncio.get_running_loop()
        ticks = []
        loop.call_later(3600, ticks.append, "an hour")
        loop.call_later(0.02, release.set)
        assert await asyncio.to_thread(release.wait, 30)
        return ticks

    assert virtually(work()) == []


def test_a_thread_that_answers_through_call_soon_threadsafe_is_waited_for():
    async def work():
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        go = threading.Event()

        def answer() -> None:
            go.wait(10)
            loop.call_soon_threadsafe(answered.set_result, "here")

        thread = threading.Thread(target=answer)
        thread.start()
        go.set()
        async with asyncio.timeout(600):
            found = await answered
        thread.join()
        return found

    assert virtually(work()) == "here"


def test_an_hour_of_health_checks():
    async def well(request: Request) -> Response:
        return Response.text("ok")

    async def work():
        clock = LoopClock(asyncio.get_running_loop())
        async with Server(well, "127.0.0.1:0") as a, Server(well, "127.0.0.1:0") as b:
            balancer = LoadBalancer([a.url, b.url], health="5s", clock=clock)
            async with running(balancer):
                await asyncio.sleep(3600)
                return a.service.requests, [endpoint.usable for endpoint in balancer.endpoints]

    probes, usable = virtually(work())
    assert 600 <= probes <= 850
    assert usable == [True, True]


def test_the_wall_clock_follows_and_jumps_alone():
    async def work():
        clock = LoopClock(asyncio.get_running_loop())
        wall, monotonic = clock.wall(), clock.monotonic()
        assert abs(wall - time.time()) < 60
        await asyncio.sleep(3600)
        assert clock.wall() - wall == pytest.approx(3600)
        clock.jump(-7200)
        assert clock.wall() - wall == pytest.approx(-3600)
        assert clock.monotonic() - monotonic == 3600

    virtually(work())


def test_until_waits_in_virtual_time_and_says_what_it_saw():
    async def work():
        loop = asyncio.get_running_loop()
        state = {"healthy": 0}
        loop.call_later(50, state.update, {"healthy": 2})
        began = loop.time()
        assert await until(lambda: state["healthy"]) == 2
        assert 50 <= loop.time() - began <= 50.01
        with pytest.raises(TimeoutError, match=r"was still False after 3600 s"):
            await until(lambda: state["healthy"] == 3, timeout="1h", every=1)

    virtually(work())


def test_the_loop_leaves_no_socket_when_it_closes():
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    assert loop.is_closed()


def test_a_broker_on_a_slow_disk_is_waited_for(tmp_path, monkeypatch):
    sync = RealFile.sync

    def slow(file: RealFile) -> None:
        time.sleep(0.02)  # ten times what a thread that nobody knows would get
        sync(file)

    monkeypatch.setattr(RealFile, "sync", slow)

    async def work():
        async with Kit() as blocks:
            broker = await blocks.broker(tmp_path)
            client = await blocks.client(broker)
            for number in range(10):
                async with asyncio.timeout(0.5):  # of virtual time, and a jump would be to here
                    await client.publish("orders", b"%d" % number)
            began = blocks.clock.monotonic()
            async with client.subscribe("orders", group="workers", lease="1h", start="earliest") as messages:
                first = await anext(messages)
                again = [await anext(messages) for _ in range(10)][-1]
                assert (first.attempt, again.attempt) == (1, 2)
            assert blocks.clock.monotonic() - began >= 3600

    began = time.monotonic()
    virtually(work())
    assert time.monotonic() - began < 60


def test_a_thread_that_was_told_of_is_waited_for_at_real_pace():
    async def work():
        async with Kit() as blocks:
            loop = asyncio.get_running_loop()
            answered = loop.create_future()
            loop.working(1)
            threading.Timer(0.05, loop.call_soon_threadsafe, (answered.set_result, "in")).start()
            async with asyncio.timeout(10):
                assert await answered == "in"
            loop.working(-1)
            assert blocks.virtual

    virtually(work())


def test_patience_is_real_time_and_ends_only_what_waits_in_vain():
    async def ticking() -> None:
        while True:
            await asyncio.sleep(1)

    async def in_vain(limit: float) -> None:
        ticks = asyncio.create_task(ticking())
        try:
            async with patience(limit):
                await asyncio.Event().wait()
        finally:
            ticks.cancel()

    async def in_time() -> str:
        async with patience(60):
            await asyncio.sleep(86_400)
        return "done"

    async def cancelled() -> None:
        async with patience(60):
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        with pytest.raises(TimeoutError, match=r"0\.05 s of real time and .* of virtual time"):
            runner.run(in_vain(0.05))
        assert runner.run(in_time()) == "done"
        with pytest.raises(asyncio.CancelledError):
            runner.run(cancelled())
