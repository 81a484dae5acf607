"""What each fault looks like to a client, on real sockets."""

from __future__ import annotations

import asyncio

import pytest

from blocks import Request, Response, Upstream
from blocks.broker import connect
from blocks.broker.errors import LeaseLost
from blocks.core.errors import ConfigError, UpstreamFault, UpstreamTimeout
from blocks.http import Headers


async def raw(origin, target: str = "/", limit: float = 100_000.0) -> tuple[bytes, BaseException | None, float]:
    """(bytes received, how it ended if badly, virtual seconds) of one request with Connection: close."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection(*origin.address)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    data, error = b"", None
    try:
        async with asyncio.timeout(limit):
            while piece := await reader.read(65536):
                data += piece
    except (OSError, TimeoutError) as problem:
        error = problem
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass
    return data, error, loop.time() - began


async def test_it_answers_with_its_name_and_keeps_a_journal(blocks):
    origin = await blocks.origin()
    response = await blocks.get(origin, "/a?b=1", {"x-test": "1"})
    assert (response.status, response.body) == (200, b"origin")
    entry = origin.journal.last
    assert (entry.method, entry.target, entry.path, entry.status, entry.fault) == ("GET", "/a?b=1", "/a", 200, "")
    assert entry.headers["x-test"] == "1"
    assert len(origin.journal) == origin.journal.total == 1


async def test_answers_of_every_kind(blocks):
    async def handler(request: Request) -> Response:
        return Response.text(request.path.upper())

    origin = await blocks.origin({"a": 1})
    origin.on("/text", "hello").on("/bytes", b"\x00").on("/code", 404).on("/handler", handler).on("/list", [1])
    origin.on("/response", Response(201, {"x-a": "b"}, b"made"))
    origin.answers(503, "second")
    got = {}
    assert (await blocks.get(origin)).status == 503
    assert (await blocks.get(origin)).body == b"second"
    for path in ("/", "/text", "/bytes", "/code", "/handler", "/list", "/response"):
        response = await blocks.get(origin, path)
        got[path] = (response.status, bytes(response.body))
    assert got == {
        "/": (200, b'{"a":1}'), "/text": (200, b"hello"), "/bytes": (200, b"\x00"), "/code": (404, b""),
        "/handler": (200, b"/HANDLER"), "/list": (200, b"[1]"), "/response": (201, b"made"),
    }  # fmt: skip
    assert origin.journal.paths.count("/") == 3
    assert [entry.target for entry in origin.journal.matching(status=404)] == ["/code"]


async def test_bodies_are_in_the_journal(blocks):
    origin = await blocks.origin()
    async with Upstream(origin.url) as client:
        response = await client(Request("POST", "/", Headers({"host": "a"}), b"hello"))
        await response.read()
    assert origin.journal.last.body == b"hello"


async def test_reset_is_a_reset(blocks):
    origin = await blocks.origin()
    origin.fault.next().reset()
    data, error, _ = await raw(origin)
    assert (data, type(error)) == (b"", ConnectionResetError)
    assert (await raw(origin))[0].endswith(b"origin")


async def test_close_is_an_orderly_end_without_a_byte(blocks):
    origin = await blocks.origin()
    origin.fault.next().close()
    assert (await raw(origin))[:2] == (b"", None)


async def test_hang_says_nothing_for_ever(blocks):
    origin = await blocks.origin()
    origin.fault.next().hang()
    data, error, passed = await raw(origin, limit=3600)
    assert (data, type(error)) == (b"", TimeoutError)
    assert passed >= 3600


async def test_half_open_neither_reads_nor_ends(blocks):
    origin = await blocks.origin()
    origin.fault.next().half_open()
    assert (await raw(origin, limit=7200))[0] == b""
    assert origin.connections == 1  # the client has left, and the origin knows nothing of it


async def test_delay_comes_exactly_later(blocks):
    origin = await blocks.origin()
    origin.fault.next().delay("30s")
    data, error, passed = await raw(origin)
    assert data.endswith(b"origin")
    assert error is None
    assert passed == pytest.approx(30.0)


async def test_trickle_gives_a_byte_at_a_time(blocks):
    origin = await blocks.origin("x" * 50)
    whole = (await raw(origin))[0]
    origin.fault.next().trickle(1, "1s")
    data, _, passed = await raw(origin)
    assert len(data) == len(whole)
    assert passed == pytest.approx(len(whole) - 1, abs=0.1)


async def test_bandwidth_is_kept(blocks):
    origin = await blocks.origin(b"x" * 1_000_000)
    origin.fault.next().bandwidth("100kB/s")
    data, error, passed = await raw(origin)
    assert len(data) > 1_000_000
    assert error is None
    assert passed == pytest.approx(10.0, rel=0.02)


async def test_cut_inside_the_head(blocks):
    origin = await blocks.origin()
    origin.fault.next().cut_head()
    origin.fault.next().cut_head(after=10)
    data, error, _ = await raw(origin)
    assert data.startswith(b"HTTP/1.1 200")
    assert b"\r\n\r\n" not in data
    assert error is None
    assert (await raw(origin))[0] == b"HTTP/1.1 2"


@pytest.mark.parametrize("after", [0, 1, 30])
async def test_cut_inside_the_body(blocks, after: int):
    origin = await blocks.origin("y" * 100)
    origin.fault.next().cut_body(after)
    data, error, _ = await raw(origin)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Content-Length: 100" in head
    assert body == b"y" * after
    assert error is None


async def test_a_cut_body_is_an_error_to_our_upstream_too(blocks):
    origin = await blocks.origin("y" * 100)
    origin.fault.next().cut_body(10)
    async with Upstream(origin.url) as client:
        with pytest.raises(UpstreamFault):
            await (await client(Request("GET", "/"))).read()


async def test_corruption_changes_one_byte(blocks):
    origin = await blocks.origin("z" * 100)
    origin.fault.next().corrupt_body()
    body = (await raw(origin))[0].partition(b"\r\n\r\n")[2]
    assert len(body) == 100
    assert sum(a != b for a, b in zip(body, b"z" * 100, strict=True)) == 1
    origin.fault.next().corrupt_head()
    data = (await raw(origin))[0]
    assert not data.startswith(b"HTTP/1.1")
    assert data[8:12] == b" 200"


async def test_duplicate_says_it_twice(blocks):
    origin = await blocks.origin()
    once = len((await raw(origin))[0])
    origin.fault.next().duplicate()
    data = (await raw(origin))[0]
    assert len(data) == 2 * once
    assert data[:once] == data[once:]


async def test_status_is_given_in_place_of_the_answer(blocks):
    origin = await blocks.origin()
    origin.fault.next().status(503, {"retry-after": "5"}, "busy")
    response = await blocks.get(origin)
    assert (response.status, response.body, response.headers["retry-after"]) == (503, b"busy", "5")


async def test_refuse_crash_and_recover(blocks):
    origin = await blocks.origin()
    port = origin.address[1]
    async with Upstream(origin.url) as client:
        assert (await client(Request("GET", "/"))).status == 200
        origin.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*origin.address)
        assert (await client(Request("GET", "/"))).status == 200  # what is connected goes on
        origin.crash()
        with pytest.raises(UpstreamFault) as failed:
            await client(Request("GET", "/"))
        assert failed.value.reason == "connect-refused"
        await origin.recover()
        assert origin.address[1] == port
        assert (await client(Request("GET", "/"))).status == 200


async def test_faults_of_connections(blocks):
    origin = await blocks.origin()
    origin.fault.connections.next().reset()
    origin.fault.connections.next().close()
    origin.fault.connections.next().hang()
    assert type((await raw(origin))[1]) is ConnectionResetError
    data, error, _ = await raw(origin)
    assert data == b""
    assert error is None or isinstance(error, ConnectionResetError)  # our request may meet a closed socket
    assert isinstance((await raw(origin, limit=60))[1], TimeoutError)
    assert (await raw(origin))[0].endswith(b"origin")
    assert origin.journal.total == 1


async def test_an_upstream_meets_hang_as_a_timeout(blocks):
    origin = await blocks.origin()
    origin.fault.next().hang()
    async with Upstream(origin.url, timeout="5s") as client:
        with pytest.raises(UpstreamTimeout):
            await client(Request("GET", "/"))


async def test_the_faults_of_what_speaks_tcp_are_those_of_its_connections(blocks):
    origin = await blocks.origin("hello")
    link = await blocks.link(origin)
    script = await blocks.tcp_origin("send hi\\n\nclose")
    armed = [link.fault.next(2).reset(), script.fault.next(1).close()]
    assert [(await raw(link))[0].endswith(b"hello") for _ in range(3)] == [False, False, True]
    assert [(await raw(script))[0] for _ in range(2)] == [b"", b"hi\n"]
    assert [one.hits for one in armed] == [[1, 2], [1]]
    assert link.fault.seen == 3
    with pytest.raises(ConfigError, match="for requests"):
        link.fault.next().status(503)
    with pytest.raises(ConfigError, match="no method, path or header"):
        script.fault.matching(path="/x")


async def test_a_link_cuts_and_stalls_without_knowing_the_protocol(blocks):
    origin = await blocks.origin("hello")
    link = await blocks.link(origin)
    assert (await raw(link))[0].endswith(b"hello")
    link.fault.connections.next().cut_body(20)
    assert len((await raw(link))[0]) == 20
    link.stall()
    assert isinstance((await raw(link, limit=600))[1], TimeoutError)
    link.flow()
    assert (await raw(link))[0].endswith(b"hello")
    link.crash()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*link.address)
    await link.recover()
    assert (await raw(link))[0].endswith(b"hello")


async def test_answers_overtake_each_other(blocks):
    origin = await blocks.origin()
    origin.fault.next(2).reorder(by=2)
    done: list[str] = []

    async def ask(path: str) -> None:
        await blocks.get(origin, path)
        done.append(path)

    asks = []
    for path in ("/1", "/2", "/3", "/4", "/5"):
        asks.append(asyncio.create_task(ask(path)))
        await asyncio.sleep(0.1)
    await asyncio.gather(*asks)
    assert done == ["/3", "/4", "/1", "/2", "/5"] or done == ["/3", "/4", "/2", "/1", "/5"]
    origin.fault.next().reorder(within="30s")
    began = blocks.clock.monotonic()
    await ask("/alone")
    assert blocks.clock.monotonic() - began == pytest.approx(30)


async def test_a_connection_is_slow_as_a_whole_and_loses_nothing(blocks):
    origin = await blocks.origin("x" * 200_000)
    whole = (await raw(origin))[0]
    origin.fault.connections.next().delay("3s")
    data, error, passed = await raw(origin)
    assert (data, error) == (whole, None)
    assert passed == pytest.approx(3)


async def test_a_link_corrupts_one_byte_of_a_connection(blocks):
    origin = await blocks.origin("z" * 100)
    link = await blocks.link(origin)
    whole = (await raw(link))[0]
    link.fault.connections.next().corrupt_body()
    data = (await raw(link))[0]
    assert sum(a != b for a, b in zip(data, whole, strict=True)) == 1
    assert (await raw(link))[0] == whole


async def test_a_link_has_a_latency_in_each_direction(blocks):
    origin = await blocks.origin("hello")
    link = await blocks.link(origin)
    for to_server, to_client in (("2s", 0), (0, "5s"), ("2s", "5s"), (0, 0)):
        link.slow(to_server=to_server, to_client=to_client)
        data, error, passed = await raw(link)
        assert data.endswith(b"hello")
        assert error is None
        expected = (2 if to_server else 0) + (5 if to_client else 0)
        assert passed == pytest.approx(expected, abs=0.1)


async def test_a_link_stalls_in_one_direction_only(blocks):
    origin = await blocks.origin("hello")
    link = await blocks.link(origin)
    link.stall("to-client")
    assert isinstance((await raw(link, limit=60))[1], TimeoutError)
    assert origin.journal.total == 1  # the request did arrive
    link.flow()
    link.stall("to-server")
    assert isinstance((await raw(link, limit=5))[1], TimeoutError)  # before the origin gives up on the silent client
    assert origin.journal.total == 1


async def test_acks_that_come_too_late_are_told_and_the_message_comes_again(blocks):
    broker = await blocks.broker()
    link = await blocks.link(broker)
    client = await blocks.enter(connect("blocks://{}:{}".format(*link.address)))
    await broker.publish("orders", b"one")
    async with client.subscribe("orders", group="workers", lease="5s", start="earliest") as messages:
        first = await anext(messages)
        link.slow(to_server="12s")
        with pytest.raises(LeaseLost):
            await first.ack(wait=True)
        link.slow()
        async for again in messages:
            assert again.payload == b"one"
            try:
                await again.ack(wait=True)
                break
            except LeaseLost:
                continue  # one of those that came while acks took too long
        assert again.attempt > 1
        assert broker.topic("orders").lag("workers") == 0


@pytest.mark.integration
async def test_the_next_two_of_ten_thousand_are_exactly_two_on_the_wire(blocks):
    origin = await blocks.origin()
    armed = origin.fault.after(4_000).next(2).status(503)
    result = await blocks.load(origin, rate=2_000, duration=5, concurrency=None)
    assert result.requests == 10_000
    assert result.statuses == {200: 9_998, 503: 2}
    assert armed.hits == [4_001, 4_002]
    assert [entry.number for entry in origin.journal if entry.fault] == [4_001, 4_002]
