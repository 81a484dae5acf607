"""A stack changes as a whole or not at all, loses no request, and keeps what it has learnt where that still fits."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from app.staged import asking, get, loaded, origins, until, written
from blocks.app.source import StackErrors
from blocks.core.errors import ConfigError
from blocks.core.logging import events

FILE = """
[servers.public]
listen = "127.0.0.1:0"
handler = "front"
[gateways.front]
[gateways.front.limits.few]
rate = "3/h"
[[gateways.front.routes]]
path = "/"
service = "cache"
[[gateways.front.routes]]
path = "/limited"
service = "users"
limit = "few"
[edges.cache]
origin = "users"
rules = [{ path = "/kept/", ttl = "1h" }]
[balancers.users]
upstreams = [UPSTREAMS]
"""


def file(*urls: str) -> str:
    return FILE.replace("UPSTREAMS", ", ".join(f'"{url}"' for url in urls))


async def test_what_stays_the_same_is_the_same_object(tmp_path: Path):
    async with origins("a") as ((_, url),):
        path = written(tmp_path, file(url))
        async with loaded(path) as stack:
            before = {name: stack[name] for name in ("users", "cache")}
            server = stack.servers["public"].server
            await stack.reload()
            assert {name: stack[name] for name in before} == before
            assert stack.servers["public"].server is server


async def test_caches_limits_and_health_survive_a_change_around_them(tmp_path: Path):
    async with origins("a", "b") as ((a, a_url), (_, b_url)):
        path = written(tmp_path, file(a_url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            assert (await get(client, "/kept/1"))[0] == 200
            assert [(await get(client, "/limited"))[0] for _ in range(4)] == [200, 200, 200, 429]
            row = stack["users"].endpoints[0]
            asked = a.requests
            written(tmp_path, file(a_url, b_url).replace("[edges.cache]", '[edges.cache]\ngrace = "2h"'))
            await stack.reload()
            assert [one.name for one in stack["users"].endpoints] == [a_url, b_url]
            assert stack["users"].endpoints[0].requests == row.requests
            assert stack["users"].endpoints[0].handler is row.handler  # with its open connections
            assert (await get(client, "/kept/1"))[0] == 200
            assert a.requests == asked  # it came from the cache
            assert (await get(client, "/limited"))[0] == 429


async def test_a_bad_file_changes_nothing_and_is_told(tmp_path: Path):
    async with origins("a") as ((_, url),):
        path = written(tmp_path, file(url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            digest = stack.version.digest
            written(tmp_path, file(url).replace('"cache"', '"cahce"'))
            with events().captured() as told, pytest.raises(StackErrors, match="cahce"):
                await stack.reload()
            assert [one["event"] for one in told] == ["reload-refused"]
            assert "stack.toml:10:1" in stack.last_error
            assert stack.version.digest == digest
            assert (await get(client))[0] == 200
            written(tmp_path, file(url))
            await stack.reload()
            assert stack.last_error == ""


async def test_a_request_is_answered_by_what_stood_there_when_it_began(tmp_path: Path):
    async with origins("a", "b") as ((a, a_url), (_, b_url)):
        path = written(tmp_path, file(a_url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            a.gate.clear()
            slow = asyncio.create_task(get(client, "/slow"))
            await until(lambda: a.requests)
            written(tmp_path, file(b_url))
            await stack.reload()
            assert (await get(client, "/new"))[1] == "b /new"
            assert stack.retiring == 1
            a.gate.set()
            assert (await slow)[1] == "a /slow"
            await until(lambda: not stack.retiring)
            assert len(stack.entered) == 3


async def test_no_request_is_lost_through_reloads_under_load(tmp_path: Path):
    async with origins("a", "b") as ((_, a_url), (_, b_url)):
        path = written(tmp_path, file(a_url))
        wrong: list[object] = []
        answered = 0
        ended = False

        async def ask(url: str) -> None:
            nonlocal answered
            async with asking(url) as client:
                while not ended:
                    try:
                        status, _ = await get(client, "/x")
                    except Exception as error:
                        status = error  # type: ignore[assignment]
                    if status != 200:
                        wrong.append(status)
                    answered += 1

        versions = [
            file(b_url),
            "[broken",
            file(a_url, b_url).replace("[balancers.users]", '[balancers.users]\npolicy = "round-robin"'),
            file(a_url).replace('listen = "127.0.0.1:0"', 'listen = "127.0.0.1:0"\nidle_timeout = "9s"'),
            file(a_url).replace('service = "users"', 'service = "cache"'),
        ]
        async with loaded(path) as stack:
            url = stack.servers["public"].url
            tasks = [asyncio.create_task(ask(url)) for _ in range(8)]
            for text in versions:
                seen = answered
                await until(lambda seen=seen: answered > seen + 40)
                written(tmp_path, text)
                if text == "[broken":
                    with pytest.raises(StackErrors):
                        await stack.reload()
                else:
                    await stack.reload()
            seen = answered
            await until(lambda: answered > seen + 40)
            ended = True
            await asyncio.gather(*tasks)
            assert wrong == []
            assert stack.servers["public"].url == url
            await until(lambda: not stack.retiring)


async def test_a_server_keeps_its_socket_when_its_settings_change_and_new_ones_open(tmp_path: Path):
    async with origins("a") as ((_, url),):
        one = f'[servers.one]\nlisten = ["127.0.0.1:0", "unix:{tmp_path}/s"]\nhandler = "{url}"\n'
        path = written(tmp_path, one)
        async with loaded(path) as stack:
            where = stack.servers["one"].url
            two = '[servers.two]\nlisten = "127.0.0.1:0"\nhandler = "u"\n[upstreams.u]\nurl = "' + url + '"\n'
            written(tmp_path, one + 'max_head = "8KiB"\n' + two)
            await stack.reload()
            await until(lambda: not stack.retiring)
            assert stack.servers["one"].url == where
            for place in (where, f"unix:{tmp_path}/s", stack.servers["two"].url):
                async with asking(place) as client:
                    assert (await get(client))[0] == 200
            gone = stack.servers["two"].url
            written(tmp_path, one)
            await stack.reload()
            await until(lambda: not stack.retiring)
            async with asking(gone) as client:
                with pytest.raises(Exception, match=r"refuse|connect"):
                    await get(client)
        assert not (tmp_path / "s").exists()


async def test_an_address_that_cannot_be_had_fails_the_reload_as_a_whole(tmp_path: Path):
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with origins("a", "b") as ((_, a_url), (_, b_url)):
        path = written(tmp_path, file(a_url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            more = f'[servers.other]\nlisten = "127.0.0.1:{port}"\nhandler = "users"\n'
            written(tmp_path, file(b_url).replace("handler", 'idle_timeout = "3s"\nhandler') + more)
            with pytest.raises(StackErrors, match="cannot listen") as caught:
                await stack.reload()
            assert caught.value.complaints[0].at == ("servers", "other", "listen")
            assert (await get(client))[1] == "a /"
            assert list(stack.servers) == ["public"]
    taken.close()
    await taken.wait_closed()


async def test_a_part_that_cannot_start_fails_the_reload_as_a_whole(tmp_path: Path):
    async with origins("a") as ((_, url),):
        path = written(tmp_path, file(url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            written(tmp_path, file(url) + f'[brokers.b]\ndata = "{tmp_path}/stack.toml"\n')
            with pytest.raises(StackErrors, match=r"\[brokers.b\] cannot start: ") as caught:
                await stack.reload()
            assert caught.value.complaints[0].at == ("brokers", "b")
            assert "stack.toml" in stack.last_error
            assert (await get(client))[0] == 200
            assert len(stack.entered) == 3


async def test_a_broker_may_come_and_go_but_not_change(tmp_path: Path):
    async with origins("a") as ((_, url),):
        broker = f'[brokers.b]\ndata = "{tmp_path}/b"\nlisten = "127.0.0.1:0"\n'
        path = written(tmp_path, file(url))
        async with loaded(path) as stack:
            written(tmp_path, file(url) + broker)
            await stack.reload()
            await stack["b"].publish("t", b"1")
            written(tmp_path, file(url) + broker + 'durability = "memory"\n')
            with pytest.raises(StackErrors, match="cannot change while it runs"):
                await stack.reload()
            written(tmp_path, file(url))
            await stack.reload()
            await until(lambda: not stack.retiring)
            assert "b" not in stack


async def test_an_edge_keeps_its_folder_open_while_its_sizes_stay(tmp_path: Path):
    async with origins("a") as ((a, url),):
        text = file(url).replace("[edges.cache]", '[edges.cache]\nstore = "store"\nstore_size = "64MiB"')
        path = written(tmp_path, text)
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            store = stack["cache"].store
            await get(client, "/kept/1")
            written(tmp_path, text.replace('ttl = "1h"', 'ttl = "2h"'))
            await stack.reload()
            await until(lambda: not stack.retiring)
            assert stack["cache"].store is store
            asked = a.requests
            assert (await get(client, "/kept/1"))[0] == 200
            assert a.requests == asked
            await get(client, "/kept/2")
        assert list((tmp_path / "store").iterdir())


async def test_reloads_at_the_same_time_happen_one_after_the_other(tmp_path: Path):
    async with origins("a", "b") as ((_, a_url), (_, b_url)):
        path = written(tmp_path, file(a_url))
        async with loaded(path) as stack:
            written(tmp_path, file(b_url))
            await asyncio.gather(*(stack.reload() for _ in range(3)))
            assert [one.name for one in stack["users"].endpoints] == [b_url]


async def test_a_certificate_that_is_bad_fails_the_reload(tmp_path: Path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    async with origins("a") as ((_, url),):
        text = f'[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "{url}"\ntls = {{ cert = "cert.pem", key = "key.pem" }}'
        async with loaded(written(tmp_path, text)) as stack:
            assert stack.servers["s"].url.startswith("https://")
            (tmp_path / "cert.pem").write_text("nothing")
            with pytest.raises(ConfigError, match="cert"):
                await stack.reload()
            context = ssl.create_default_context()
            authority.configure_trust(context)
            port = int(stack.servers["s"].url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            writer.close()
            await writer.wait_closed()


async def test_an_edge_may_be_given_more_memory_but_not_another_size_of_its_open_folder(tmp_path: Path):
    async with origins("a") as ((a, url),):
        text = file(url).replace(
            "[edges.cache]", '[edges.cache]\nmemory = "8MiB"\nstore = "store"\nstore_size = "64MiB"'
        )
        path = written(tmp_path, text)
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            await get(client, "/kept/1")
            written(tmp_path, text.replace("8MiB", "16MiB"))
            await stack.reload()
            assert stack["cache"].memory.capacity == 16 << 20
            asked = a.requests
            assert (await get(client, "/kept/1"))[0] == 200
            assert a.requests == asked
            written(tmp_path, text.replace("64MiB", "128MiB"))
            with pytest.raises(StackErrors, match=r"store_size .* cannot change") as caught:
                await stack.reload()
            assert caught.value.complaints[0].at == ("edges", "cache", "store_size")


async def test_a_gateways_own_file_is_read_again(tmp_path: Path):
    async with origins("a", "b") as ((_, a_url), (_, b_url)):
        routes = '[[routes]]\npath = "/"\nservice = "{}"\n'
        written(tmp_path, routes.format("a"), "gateway.toml")
        text = '[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "g"\n[gateways.g]\nfile = "gateway.toml"\n'
        text += f'[upstreams.a]\nurl = "{a_url}"\n[upstreams.b]\nurl = "{b_url}"\n'
        async with loaded(written(tmp_path, text)) as stack, asking(stack.servers["s"].url) as client:
            assert (await get(client))[1] == "a /"
            written(tmp_path, routes.format("b"), "gateway.toml")
            await stack.reload()
            assert (await get(client))[1] == "b /"
            written(tmp_path, routes.format("c"), "gateway.toml")
            with pytest.raises(StackErrors, match="no service named 'c'") as caught:
                await stack.reload()
            (row,) = caught.value.rows()
            assert (row["file"], row["line"], row["key"]) == (str(tmp_path / "gateway.toml"), 3, "routes[0].service")


async def test_tables_that_are_refused_are_not_what_the_next_reload_takes(tmp_path: Path):
    async with origins("a") as ((_, url),):
        async with loaded(written(tmp_path, file(url))) as stack:
            with pytest.raises(StackErrors):
                await stack.reload({"severs": {}})
            await stack.reload()
            assert "users" in stack


async def test_a_server_of_another_name_takes_over_the_path_of_a_socket(tmp_path: Path):
    async with origins("a") as ((_, url),):
        text = f'[servers.NAME]\nlisten = "unix:{tmp_path}/s"\nhandler = "{url}"\n'
        async with loaded(written(tmp_path, text.replace("NAME", "one"))) as stack:
            written(tmp_path, text.replace("NAME", "two"))
            await stack.reload()
            await until(lambda: not stack.retiring)
            assert list(stack.servers) == ["two"]
            async with asking(f"unix:{tmp_path}/s") as client:
                assert (await get(client))[0] == 200
        assert not (tmp_path / "s").exists()


async def test_a_new_server_with_a_new_handler_never_meets_an_empty_place(tmp_path: Path):
    async with origins("a") as ((_, url),):
        text = '[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "one"\n[upstreams.one]\nurl = "' + url + '"\n'
        wrong: list[int] = []
        ended = False

        async def ask(where: str) -> None:
            while not ended:
                async with asking(where) as client:  # a new connection each time: whoever accepts it answers
                    status, _ = await get(client)
                    if status != 200:
                        wrong.append(status)

        async with loaded(written(tmp_path, text)) as stack:
            tasks = [asyncio.create_task(ask(stack.servers["s"].url)) for _ in range(4)]
            for number in range(10):
                written(tmp_path, text.replace("one", f"name{number}"))
                await stack.reload()
            ended = True
            await asyncio.gather(*tasks)
            assert wrong == []


async def test_a_drain_waits_for_what_an_earlier_version_has_under_way(tmp_path: Path):
    async with origins("a") as ((a, url),):
        path = written(tmp_path, file(url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            a.gate.clear()
            slow = asyncio.create_task(get(client, "/slow"))
            await until(lambda: a.requests)
            written(tmp_path, file(url).replace("handler", 'idle_timeout = "9s"\nhandler'))
            await stack.reload()
            drained = asyncio.create_task(stack.drain(20))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not drained.done()
            a.gate.set()
            assert (await slow)[0] == 200
            assert await drained


async def test_a_file_that_is_empty_at_the_moment_does_not_end_what_serves(tmp_path: Path):
    async with origins("a") as ((_, url),):
        path = written(tmp_path, file(url))
        async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
            for text in ("", "# nothing yet\n", '[brokers.inner]\ndata = ":memory:"\n'):
                path.write_text(text)
                with pytest.raises(StackErrors, match="nothing listens"):
                    await stack.reload()
                assert "nothing listens" in stack.last_error
                assert (await get(client, "/kept/1"))[0] == 200


async def test_a_gateways_own_file_is_read_anew_where_the_tables_were_given_in_code(tmp_path: Path):
    async with origins("one") as [(_, url)]:
        file = tmp_path / "gateway.toml"
        file.write_text('[[routes]]\npath = "/a"\nservice = "one"\n')
        tables = {
            "servers": {"public": {"listen": "127.0.0.1:0", "handler": "front"}},
            "gateways": {"front": {"file": "gateway.toml"}},
            "upstreams": {"one": {"url": url}},
        }
        async with (
            loaded(tables, base=tmp_path) as stack,
            asking(stack.servers["public"].url) as client,
        ):
            assert (await get(client, "/b"))[0] == 404
            file.write_text('[[routes]]\npath = "/b"\nservice = "one"\n')
            await stack.reload()
            assert (await get(client, "/b"))[0] == 200
