# a backend stands around a process, not beside it
"""``blocks balancer`` as an operator meets it: ready line, ports file, exit codes, signals, workers; and a thousand lives in one process."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from blocks import LoadBalancer, Request, Upstream
from blocks.http import Server
from integration.operated import Load, backends, balancer, command, start, until
from integration.wire import LAST, OK, Backend, Client, answers, talk

pytestmark = pytest.mark.integration


async def test_the_ready_line_and_the_ports_file_say_where_it_listens(tmp_path: Path):
    file = tmp_path / "ports.json"
    async with Backend() as backend:
        flags = ("--upstream", backend.url, "--listen", f"unix:{tmp_path}/b.sock", "--ports-file", str(file))
        async with balancer(*flags) as process:
            line = process.ready
            assert line["event"] == "ready"
            assert line["pid"] == process.pid
            assert line["port"] > 0
            assert line["url"] == f"http://127.0.0.1:{line['port']}"
            assert line["listen"] == [f"127.0.0.1:{line['port']}", f"unix:{tmp_path}/b.sock"]
            assert json.loads(file.read_text()) == line
            for address in line["listen"]:
                async with Client(address) as client:
                    client.send(LAST)
                    assert [one.status for one in answers(await client.all())] == [200]
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
            assert process.errors == ""
        assert not (tmp_path / "b.sock").exists()


UP = ("--upstream", "http://127.0.0.1:9")
WRONG: list[tuple[tuple[str, ...], str]] = [
    (("--upstrem", "http://127.0.0.1:9"), "--upstream"),
    (("--upstream", "127.0.0.1:9001"), "http://127.0.0.1:9001"),
    (("--upstream", "htp://127.0.0.1:9001"), "http"),
    (("--upstream", "http://"), "host"),
    (("--upstream", "http://a:99999"), "99999"),
    (("--upstream", "http://u:p@a"), "scheme"),
    ((), "--upstream"),
    ((*UP, "--policy", "p2x"), "p2c"),
    ((*UP, "--listen", "8080"), "127.0.0.1:8080"),
    ((*UP, "--listen", "127.0.0.1:x"), "127.0.0.1:8080"),
    ((*UP, "--head-timeout", "soon"), "30s"),
    ((*UP, "--max-head", "big"), "KiB"),
    ((*UP, "--min-rate", "500"), "B/s"),
    ((*UP, "--rise", "0"), "1"),
    ((*UP, "--health-path", "healthz"), "/healthz"),
    ((*UP, "--workers", "0"), "1"),
    ((*UP, "--tls-cert", "/nowhere/at.all", "--tls-key", "/nowhere/at.all"), "nowhere"),
    ((*UP, "extra"), "extra"),
]


@pytest.mark.parametrize(("flags", "said"), WRONG, ids=[" ".join(flags[-2:]) for flags, _ in WRONG])
async def test_a_bad_flag_exits_2_and_says_what_would_be_right(flags: tuple[str, ...], said: str):
    code, out, errors = await command("balancer", *flags)
    assert (code, out) == (2, "")
    assert said in errors
    assert "Traceback" not in errors


async def test_a_port_in_use_exits_4_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for more in ((), ("--workers", "2")):
            code, out, errors = await command("balancer", *UP, "--listen", address, *more)
            assert (code, out) == (4, "")
            assert len(errors.splitlines()) == 1
            assert address in errors


async def test_workers_share_the_port_are_replaced_and_leave_together(tmp_path: Path):
    async with backends(tmp_path, 2) as made:
        flags = ("--upstream", made[0].url, "--upstream", made[1].url, "--workers", "2")
        async with balancer(*flags) as process:
            assert process.ready["workers"] == 2

            def children() -> list[int]:
                return [
                    int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                ]

            first = children()
            assert len(first) == 2
            async with Load(process.port, 8) as load:
                await load.answered(200)
            assert load.lost == []
            os.kill(first[0], signal.SIGKILL)
            await until(lambda: len(children()) == 2 and first[0] not in children())
            for _ in range(20):
                assert [one.status for one in await talk(process.port, LAST)] == [200]
            process.signal(signal.SIGHUP)
            assert [one.status for one in await talk(process.port, LAST)] == [200]
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
            assert "worker-died" in process.errors


async def test_sigterm_to_workers_under_load_loses_nothing(tmp_path: Path):
    async with backends(tmp_path, 2) as made:
        flags = ("--upstream", made[0].url, "--upstream", made[1].url, "--workers", "2")
        async with balancer(*flags) as process, Load(process.port, 8) as load:
            await load.answered(300)
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
        assert load.lost == []


async def test_limits_on_the_command_line_hold():
    async with Backend() as backend:
        flags = ("--max-connections", "2", "--max-head", "4KiB", "--max-body", "1KiB", "--idle-timeout", "300ms")
        async with balancer("--upstream", backend.url, *flags) as process:
            got = await talk(process.port, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000 + b"\r\n\r\n")
            assert [one.status for one in got] == [431]
            got = await talk(process.port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n", "POST")
            assert [one.status for one in got] == [413]
            async with Client(process.port) as one, Client(process.port) as two:
                for client in (one, two):
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    await client.until(b"\r\n\r\nok")
                assert [answer.status for answer in await talk(process.port, b"")] == [503]
                await one.all()  # the idle timeout
                await two.all()


async def test_an_access_log_on_standard_output_has_a_line_for_each_request():
    async with Backend() as backend, balancer("--upstream", backend.url, "--access-log", "-") as process:
        await talk(process.port, b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
        assert process.process.stdout is not None
        lines = [json.loads(await asyncio.wait_for(process.process.stdout.readline(), 10)) for _ in range(2)]
        assert [line["status"] for line in lines] == [200, 200]
        assert "/a?b" in json.dumps(lines[0])


async def test_standard_error_that_nobody_reads_and_a_reader_that_left_do_not_matter():
    """A supervisor that closes our standard output must not end us."""
    async with Backend() as backend:
        process = await start(
            sys.executable, "-m", "blocks", "balancer", "--listen", "127.0.0.1:0", "--upstream", backend.url, "--access-log", "-"
        )  # fmt: skip
        try:
            process.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            for _ in range(5):
                assert [one.status for one in await talk(process.port, LAST)] == [200]
                await asyncio.sleep(0.05)
        finally:
            await process.end()


async def test_a_thousand_lives_leave_nothing():
    """Start, serve, stop: no task, no descriptor, no thread, and no growth, stays behind."""
    async with Backend(OK) as backend:

        async def live() -> None:
            balanced = LoadBalancer([Upstream(backend.url)], health=None)
            async with Server(balanced, "127.0.0.1:0") as server:
                assert [one.status for one in await talk(server, LAST)] == [200]

        def holds() -> tuple[int, int, int]:
            return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), threading.active_count()

        for _ in range(20):
            await live()
        await backend.until(lambda: all(connection.lost.is_set() for connection in backend.connections))
        gc.collect()
        backend.connections.clear()
        before, objects = holds(), len(gc.get_objects())
        for _ in range(980):
            await live()
            await backend.until(lambda: all(connection.lost.is_set() for connection in backend.connections))
            backend.connections.clear()
            backend.requests.clear()
        gc.collect()
        assert holds() == before
        assert len(gc.get_objects()) - objects < 2000


async def test_a_balancer_in_code_is_used_without_a_server():
    async with Backend() as backend, LoadBalancer([backend.url]) as balanced:
        assert await (await balanced(Request("GET", "/", {"host": "a"}))).read() == b"ok"
        for endpoint in balanced.endpoints:
            await endpoint.handler.close()  # type: ignore[attr-defined]
