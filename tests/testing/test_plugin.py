"""The plug-in seen from outside: a pytest of its own runs each little suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ASYNCIO = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto")


def run(folder: Path, code: str, *options: str) -> tuple[int, str]:
    """(exit code, output) of a pytest over ``code``, with only the plug-ins that are named."""
    (folder / "test_it.py").write_text(code, encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(folder), "-p", "no:cacheprovider",
        "-p", "blocks.testing.plugin", *options, str(folder),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        env={"PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.returncode, done.stdout + done.stderr


FAILOVER = """
async def test_failover(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    a.fault.next(2).reset()
    result = await blocks.load(lb, rate=100, duration="2s")
    result.expect(errors=0)
    assert blocks.virtual is {virtual}
"""


def test_it_runs_in_virtual_time_and_the_same_in_real_time(tmp_path: Path):
    code, output = run(tmp_path, FAILOVER.format(virtual=True), *ASYNCIO)
    assert code == 0, output
    code, output = run(tmp_path, FAILOVER.format(virtual=False), *ASYNCIO, "--blocks-real-time")
    assert code == 0, output


HANDFUL = r"""
import pytest
from blocks import Response
from blocks.gateway import route

async def test_an_ejected_member_comes_back(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="50ms")
    a.crash()
    await blocks.until(lambda: lb.healthy == 1)
    assert (await blocks.load(lb, rate=100, duration="200ms")).errors == 0
    await a.recover()
    await blocks.until(lambda: lb.healthy == 2)

async def test_a_page_is_kept_for_its_ttl(blocks):
    origin = await blocks.origin(Response(200, {"cache-control": "max-age=1"}, b"page"))
    edge = await blocks.edge(origin, ttl_jitter=0, refresh_ahead=0)
    for _ in range(3):
        assert (await edge.get("/page")).body == b"page"
    assert origin.journal.total == 1
    await blocks.clock.sleep("1100ms")
    await edge.get("/page")
    assert origin.journal.total == 2

async def test_a_limit_refills(blocks):
    origin = await blocks.origin()
    gateway = await blocks.gateway(route("/", blocks.upstream(origin), limit="2/s"))
    assert [(await gateway.get()).status for _ in range(3)] == [200, 200, 429]
    await blocks.clock.sleep("600ms")
    assert (await gateway.get()).status == 200

async def test_a_lease_ends(blocks):
    broker = await blocks.broker()
    client = await blocks.client(broker)
    await client.publish("orders", b"one")
    options = {"group": "workers", "start": "earliest", "lease": "300ms", "max_lease": "300ms"}
    async with client.subscribe("orders", **options) as messages:
        assert (await anext(messages)).attempt == 1
        again = await anext(messages)
        assert again.attempt == 2
        await again.ack(wait=True)

async def test_a_power_cut(blocks):
    disk = blocks.disk()
    broker = await blocks.broker(disk=disk)
    await broker.publish("orders", b"one")
    await disk.power_cut()
    await disk.power_on()
    assert broker.topic("orders").messages == 1

async def test_faults_take_their_time(blocks):
    origin = await blocks.origin()
    origin.fault.next().delay("300ms")
    origin.fault.next().trickle(40, "50ms")
    began = blocks.clock.monotonic()
    for _ in range(2):
        assert (await blocks.get(origin)).status == 200
    assert blocks.clock.monotonic() - began >= 0.4

async def test_a_script(blocks):
    origin = await blocks.tcp_origin("expect /GET .*\\r\\n\\r\\n/\nsend HTTP/1.1 204 No Content\\r\\n\\r\\n")
    assert (await blocks.get(origin)).status == 204
    origin.verify()
"""


@pytest.mark.parametrize("options", [(), ("--blocks-real-time",)], ids=["virtual", "real"])
def test_the_same_handful_passes_in_virtual_and_in_real_time(tmp_path: Path, options: tuple[str, ...]):
    code, output = run(tmp_path, HANDFUL, *ASYNCIO, *options)
    assert code == 0, output
    assert "7 passed" in output


def test_the_handful_passes_in_real_time_on_uvloop(tmp_path: Path):
    loop = (
        "import pytest, uvloop\n@pytest.fixture(scope='session')\ndef event_loop_policy(): return uvloop.EventLoopPolicy()\n"
        "async def test_loop():\n    import asyncio\n    assert 'uvloop' in type(asyncio.get_running_loop()).__module__\n"
        "async def test_reset(blocks):\n    origin = await blocks.origin()\n    lb = await blocks.balancer(origin, blocks.upstream(origin))\n"
        "    origin.fault.next(2).reset()\n    assert (await lb.get()).status in (200, 502)\n"
    )
    code, output = run(tmp_path, loop + HANDFUL, *ASYNCIO, "--blocks-real-time")
    assert code == 0, output
    assert "9 passed" in output


def test_the_handful_passes_under_anyio_and_spread_over_workers(tmp_path: Path):
    mark = "import pytest\npytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    code, output = run(
        tmp_path, mark + HANDFUL, "-p", "anyio.pytest_plugin", "-p", "xdist.plugin", "-n", "2", "--dist", "load"
    )
    assert code == 0, output
    assert "7 passed" in output


def test_it_runs_under_anyio(tmp_path: Path):
    mark = "import pytest\npytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    code, output = run(tmp_path, mark + FAILOVER.format(virtual=True), "-p", "anyio.pytest_plugin")
    assert code == 0, output


def test_it_runs_under_xdist(tmp_path: Path):
    code, output = run(tmp_path, FAILOVER.format(virtual=True), *ASYNCIO, "-p", "xdist.plugin", "-n", "1")
    assert code == 0, output


def test_a_failure_shows_the_timeline_and_the_seed(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
async def test_it(blocks):
    a = await blocks.origin()
    lb = await blocks.balancer(a)
    a.fault.next(9).status(503)
    assert (await lb.get("/page")).status == 200
""",
        *ASYNCIO,
        "--blocks-seed=77",
    )
    assert code == 1
    assert "blocks timeline (--blocks-seed=77 replays it)" in output
    assert "GET /page -> 503 [status-503]" in output
    assert "balancer  GET /page -> 503" in output


def test_what_is_left_behind_fails_the_test(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
import asyncio, socket
kept = []
async def test_task(blocks):
    await blocks.origin()
    kept.append(asyncio.create_task(asyncio.sleep(1e6), name="forgotten"))
async def test_socket(blocks):
    await blocks.origin()
    kept.append(socket.socket())
async def test_clean(blocks):
    lb = await blocks.balancer(*await blocks.origins(3), health="1s")
    await blocks.load(lb, rate=50, duration=1)
""",
        *ASYNCIO,
    )
    assert code == 1
    assert "2 failed, 1 passed" in output
    assert "task forgotten" in output
    assert "socket:[" in output


def test_what_was_dropped_open_or_never_awaited_fails_the_test(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
import asyncio, pytest, socket, warnings
async def test_dropped(blocks):
    socket.create_server(("127.0.0.1", 0))
async def test_never_awaited(blocks):
    origin = await blocks.origin()
    blocks.get(origin)
async def test_other_warnings_are_not_ours(blocks):
    warnings.warn("just so")
    await blocks.origin()
@pytest.mark.blocks(leaks=False)
async def test_not_looked_at(blocks):
    socket.create_server(("127.0.0.1", 0))
def test_plain(blocks_sync):
    kept.append(socket.create_server(("127.0.0.1", 0)))
kept = []
""",
        *ASYNCIO,
    )
    assert code == 1
    assert "ResourceWarning: unclosed <socket.socket" in output
    assert "RuntimeWarning: coroutine 'Kit.get' was never awaited" in output
    assert "UserWarning: just so" in output
    assert "2 failed, 3 passed" in output
    assert "1 error" in output


def test_a_plain_test_is_told_which_fixture_it_needs(tmp_path: Path):
    code, output = run(tmp_path, "def test_it(blocks): pass\n", *ASYNCIO)
    assert code == 1
    assert "a plain one uses 'blocks_sync'" in output


def test_other_tests_keep_their_loop_and_their_time(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
import asyncio
async def test_before(): assert type(asyncio.get_running_loop()).__name__ != "VirtualLoop"
async def test_virtual(blocks): assert blocks.virtual
async def test_after(): assert type(asyncio.get_running_loop()).__name__ != "VirtualLoop"
""",
        *ASYNCIO,
    )
    assert code == 0, output


def test_an_async_fixture_of_the_user_may_use_it(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
import pytest_asyncio
@pytest_asyncio.fixture
async def shop(blocks):
    return await blocks.balancer(*await blocks.origins(2))
async def test_it(shop, blocks):
    assert (await shop.get()).status == 200
    assert blocks.virtual
""",
        *ASYNCIO,
    )
    assert code == 0, output


def test_collecting_imports_nothing_of_ours_but_the_plug_in():
    code = (
        "import pytest, sys, time; before = set(sys.modules); t = time.perf_counter(); import blocks.testing.plugin;"
        "print(round((time.perf_counter() - t) * 1000, 2), sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    took, _, modules = done.stdout.partition(" ")
    assert modules.strip() == "['blocks', 'blocks.testing', 'blocks.testing.plugin']"
    assert float(took) < 500  # a bound against accidents; the figure itself is in docs/how-to/test-with-blocks.md


def test_a_wait_for_what_never_comes_ends_and_shows_where_it_waited(tmp_path: Path):
    code, output = run(
        tmp_path,
        """
import asyncio, pytest
async def test_spins(blocks):
    broker = await blocks.broker()
    client = await blocks.client(broker)                    # heartbeats: there is always a next timer
    await anext(aiter(client.subscribe("orders", group="g")))  # never comes
@pytest.mark.blocks(timeout=0.2)
async def test_sleeps(blocks):
    await asyncio.Event().wait()                            # nothing is planned at all
async def test_is_quick(blocks):
    await blocks.clock.sleep("1h")
""",
        *ASYNCIO,
        "--blocks-timeout=0.5",
    )
    assert code == 1
    assert "2 failed, 1 passed" in output
    assert "TimeoutError: 0.5 s of real time and" in output
    assert "TimeoutError: 0.2 s of real time and 0 s of virtual time have passed" in output
    assert "# never comes" in output
