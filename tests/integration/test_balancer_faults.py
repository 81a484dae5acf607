# a backend stands around a process, not beside it
"""What a balancer process survives, on real sockets, with real processes killed under real load."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import pytest
import trustme

from integration.operated import Load, backends, balancer, until
from integration.wire import LAST, OK, Backend, Client, Close, Reset, Steps, answers, talk

pytestmark = pytest.mark.integration
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_a_backend_killed_under_load_costs_no_idempotent_request(tmp_path: Path):
    async with backends(tmp_path, 3) as made, balancer(*upstreams(*[one.url for one in made])) as process:
        async with Load(process.port, 12) as load:
            await load.answered(300)
            await made[0].kill()
            await load.answered(500)
            await made[0].start()
            await load.answered(500)
        assert load.lost == []
        assert set(load.statuses) == {200}


async def test_a_backend_killed_under_load_never_makes_a_post_go_twice(tmp_path: Path):
    async with backends(tmp_path, 2) as made, balancer(*upstreams(*[one.url for one in made])) as process:
        async with Load(process.port, 12, post=True) as load:
            await load.answered(300)
            await made[0].kill()
            await load.answered(500)
        posts = [post for one in made for post in one.posts()]
        assert len(posts) == len(set(posts))
        assert load.lost == []
        assert load.statuses[200] > 600
        assert set(load.statuses) <= {200, 502, 503}
        assert (
            load.statuses[502] + load.statuses[503] <= 24
        )  # those that were under way on it, and on connections it had left


def upstreams(*urls: str) -> list[str]:
    return [part for url in urls for part in ("--upstream", url)]


BAD: list[tuple[str, Steps, Steps | None]] = [
    ("accepts and never answers", b"", None),
    ("answers half a head and no more", b"HTTP/1.1 200 OK\r\nContent-", None),
    ("closes instead of answering", [Close], None),
    ("resets instead of answering", [Reset], None),
    ("closes as soon as it has accepted", b"", [Close]),
    ("resets as soon as it has accepted", b"", [Reset]),
    ("answers garbage", b"\x00\xff" * 100, None),
    ("answers another protocol", b"220 mail ESMTP\r\n", None),
    ("speaks before it is asked", OK, b"220 hello\r\n"),
    ("answers with two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", None),
]


@pytest.mark.parametrize(("name", "answer", "on_connect"), BAD, ids=[row[0] for row in BAD])
async def test_a_bad_backend_beside_a_good_one_is_not_seen_by_idempotent_requests(
    name: str, answer: Steps, on_connect: Steps | None
):
    async with Backend(answer, on_connect=on_connect) as bad, Backend() as good:
        async with balancer(*upstreams(bad.url, good.url), "--upstream-timeout", "300ms") as process:
            async with Load(process.port, 6) as load:
                await load.answered(100)
            assert load.lost == []
            assert set(load.statuses) == {200}
            assert bad.connections


async def test_a_backend_that_closes_each_reused_connection():
    def once(seen: object, count: int) -> Steps:
        return [OK]

    async with Backend(once) as backend, balancer(*upstreams(backend.url)) as process:
        async with Load(process.port, 4) as load:
            for _ in range(20):
                await load.answered(10)
                for connection in backend.connections:
                    connection.transport.close()
        assert load.lost == []
        assert set(load.statuses) == {200}


async def test_a_body_reset_in_the_middle_is_visible_and_the_client_of_the_next_is_well():
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello"
    async with Backend(lambda seen, count: [cut, Reset] if seen.target == "/cut" else OK) as backend:
        async with balancer(*upstreams(backend.url)) as process:
            for _ in range(3):
                got = await talk(process.port, GET.replace(b"/ ", b"/cut "))
                assert [(one.status, one.whole) for one in got if one.status == 200] in ([], [(200, False)])
                assert all(one.status in (200, 502) for one in got)
                assert [one.status for one in await talk(process.port, LAST)] == [200]


async def test_all_backends_down_and_back(tmp_path: Path):
    async with backends(tmp_path, 2) as made, balancer(*upstreams(*[one.url for one in made])) as process:
        async with Load(process.port, 4) as load:
            await load.answered(100)
            for one in made:
                await one.kill()
            await until(lambda: load.statuses[502] + load.statuses[503] > 5)
            for one in made:
                await one.start()
            good = load.statuses[200]
            await until(lambda: load.statuses[200] > good + 200)
            bad = load.statuses[502] + load.statuses[503]
            await load.answered(200)
            assert load.statuses[502] + load.statuses[503] == bad
        assert load.lost == []


async def test_sigterm_under_load_loses_nothing(tmp_path: Path):
    async with backends(tmp_path, 2) as made, balancer(*upstreams(*[one.url for one in made])) as process:
        load = Load(process.port, 16)
        async with load:
            await load.answered(300)
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
        assert load.lost == []
        assert set(load.statuses) == {200}


async def test_sigterm_lets_a_slow_answer_finish_and_a_second_one_does_not():
    async with Backend(b"") as backend:
        for second in (False, True):
            async with balancer(*upstreams(backend.url)) as process, Client(process.port) as client:
                seen = len(backend.requests)
                client.send(GET)
                await backend.until_seen(seen + 1)
                process.signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
                if second:
                    process.signal(signal.SIGTERM)
                    assert await process.exit(5) == 5
                    continue
                backend.connections[-1].transport.write(OK)
                got = answers(await client.all())
                assert [(one.status, one.headers["connection"]) for one in got] == [(200, "close")]
                assert await process.exit() == 0


def issue(authority: trustme.CA, folder: Path) -> list[str]:
    made = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    (folder / "key.pem").write_bytes(made.private_key_pem.bytes())
    return ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]


async def served(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass
    del reader
    return bytes(certificate)


async def test_certificates_are_reloaded_under_load_and_a_bad_file_changes_nothing(tmp_path: Path):
    authority = trustme.CA()
    flags = issue(authority, tmp_path)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with Backend() as backend, balancer(*upstreams(backend.url), *flags) as process:
        first = await served(process.port, context)
        async with Load(process.port, 4, tls=context) as load:
            await load.answered(50)
            issue(authority, tmp_path)
            process.signal(signal.SIGHUP)
            async with asyncio.timeout(15):
                while (second := await served(process.port, context)) == first:
                    await asyncio.sleep(0.02)
            await load.answered(50)
            (tmp_path / "key.pem").write_text("not a key")
            process.signal(signal.SIGHUP)
            await load.answered(100)
            assert await served(process.port, context) == second
            assert load.connections == 4
        assert load.lost == []
        assert set(load.statuses) == {200}


async def test_a_thousand_slow_clients_beside_a_good_one():
    """Heads that drip, bodies that drip, clients that say nothing: the good one is served all the while, the slow ones are cut."""
    async with Backend() as backend:
        flags = ("--head-timeout", "2s", "--body-timeout", "2s", "--min-rate", "500B/s", "--idle-timeout", "2s")
        async with balancer(*upstreams(backend.url), *flags) as process:
            before = process.descriptors
            slow = []
            for number in range(1000):
                client = Client(process.port)
                await client.__aenter__()
                slow.append(client)
                client.send(
                    (b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")[number % 3]
                )
            async with Load(process.port, 1) as load:
                await load.answered(100)
                await asyncio.gather(*[client.all() for client in slow])
                await load.answered(20)
            assert load.lost == []
            assert set(load.statuses) == {200}
            said = [one.status for client in slow for one in answers(client.raw)]
            assert set(said) == {408}
            assert len(said) > 600
            for client in slow:
                await client.__aexit__()
            await until(lambda: process.descriptors <= before + 4)


async def test_a_full_descriptor_table_refuses_clients_says_so_and_is_got_over():
    """The table never gets quite full: with a full one accepting fails unseen and spins."""
    async with Backend() as backend, balancer(*upstreams(backend.url), descriptors=64) as process:
        clients = []
        for _ in range(300):
            client = Client(process.port)
            await client.__aenter__()
            clients.append(client)
        for client in clients[:20]:
            client.send(GET)
        await until(lambda: "out-of-descriptors" in process.errors)
        refused = clients[60:]
        await asyncio.gather(*[client.all() for client in refused])
        assert {one.status for client in refused for one in answers(client.raw)} == {503}
        assert sum(bool(client.raw) for client in refused) > 200
        assert process.descriptors < 64
        before = process.cpu
        await asyncio.sleep(1.0)
        assert process.cpu - before < 0.5  # a spin takes all of the second
        for client in clients:
            await client.__aexit__()
        async with Load(process.port, 1) as load:
            await until(lambda: load.statuses[200] > 20)
        assert process.process.returncode is None
        assert len(process.errors) < 20_000


async def test_a_quarter_gigabyte_to_a_slow_reader_is_not_held_in_memory():
    size = 256 * 1024 * 1024
    async with Backend(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size) as backend:
        async with balancer(*upstreams(backend.url)) as process, Client(process.port) as client:
            async with Load(process.port, 1) as load:
                backend.answer = OK
                await load.answered(50)
            backend.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
            before = process.memory
            client.send(GET)
            await client.until(b"\r\n\r\n")
            transport = backend.connections[-1].transport
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            block = b"x" * (1 << 20)
            most = left = sent = 0
            for _ in range(size >> 20):
                transport.write(block)
            for _ in range(10):
                await asyncio.sleep(0.05)
                most = max(most, process.memory)
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            left = size
            while left:
                left -= len(await asyncio.wait_for(client.reader.read(1 << 20), 20))
                sent += 1
                if sent % 50 == 0:
                    most = max(most, process.memory)
            assert most - before < 16 * 1024 * 1024


async def test_readers_that_take_nothing_are_cut_and_cost_the_others_nothing():
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 << 20) + b"x" * (10 << 20)
    async with Backend(lambda seen, count: big if seen.target == "/big" else OK) as backend:
        async with balancer(*upstreams(backend.url), "--send-timeout", "1s") as process:
            before, held = process.descriptors, process.memory
            slow = []
            for _ in range(24):
                client = Client(process.port)
                await client.__aenter__()
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                client.send(GET.replace(b"/ ", b"/big "))
                slow.append(client)
            await until(lambda: sum(seen.target == "/big" for seen in backend.requests) == 24)
            async with Load(process.port, 1) as load:
                await load.answered(100)
                await until(lambda: process.clients <= 1)
                await load.answered(20)
            assert load.lost == []
            assert set(load.statuses) == {200}
            assert process.memory - held < 24 * (1 << 20)  # of 240 MiB; the rest waits where it came from
            for client in slow:
                await client.__aexit__()
            await until(lambda: process.descriptors <= before + 4)


async def test_an_idle_process_uses_no_cpu_after_ten_thousand_connections():
    """Opened, aborted, closed, in the middle of everything: nothing stays, nothing spins."""
    async with Backend() as backend, balancer(*upstreams(backend.url)) as process:
        openings = (b"", b"GET / HT", GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", b"\x16\x03")
        address = ("127.0.0.1", process.port)

        def burst() -> None:
            import socket
            import struct

            for number in range(10_000):
                sock = socket.create_connection(address, 10)
                data = openings[number % len(openings)]
                if data:
                    sock.sendall(data)
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        await asyncio.get_running_loop().run_in_executor(None, burst)
        await until(lambda: process.clients == 0)
        for _ in range(8):  # what the burst left to do is done first
            used = process.cpu
            await asyncio.sleep(1.0)
            if process.cpu - used <= 0.01:
                break
        assert process.cpu - used <= 0.01
        assert [one.status for one in await talk(process.port, LAST)] == [200]
