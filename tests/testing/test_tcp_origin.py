"""Scripted TCP origins: they follow the script, say where the client did not, and fail on command."""

from __future__ import annotations

import asyncio

import pytest

from blocks.core.errors import ConfigError
from blocks.testing.transcript import Mismatch, parse

PING = r"""
    # one round, then the origin hangs up
    expect PING\r\n
    wait 30s
    send PONG\r\n
    expect /QUIT [a-z]+\r\n/
    close
"""


async def talk(origin, *said: bytes) -> bytes:
    """What the origin said to one who says that, then ends."""
    reader, writer = await asyncio.open_connection(*origin.address)
    for data in said:
        writer.write(data)
        await asyncio.sleep(1)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionResetError:
            pass


async def test_a_transcript_is_followed_byte_by_byte(blocks):
    origin = await blocks.tcp_origin(PING)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await talk(origin, b"PI", b"NG\r\nQUIT", b" bye\r\n") == b"PONG\r\n"
    assert loop.time() - began >= 30
    one = origin.journal[0]
    assert (bytes(one.received), bytes(one.sent), one.problem, one.done) == (
        b"PING\r\nQUIT bye\r\n",
        b"PONG\r\n",
        "",
        True,
    )
    origin.verify()


async def test_what_is_not_in_the_script_is_told_and_reset(blocks):
    origin = await blocks.tcp_origin(PING)
    assert await talk(origin, b"HELO\r\n") == b"reset"
    with pytest.raises(Mismatch, match=r"expected b'PING\\r\\n', got b'HELO\\r\\n'"):
        origin.verify()
    assert any("expected" in str(what) for _, who, what in blocks.timeline if who == "tcp-origin")


async def test_a_client_that_leaves_early_is_a_mismatch(blocks):
    origin = await blocks.tcp_origin("expect PING")
    _, writer = await asyncio.open_connection(*origin.address)
    writer.write(b"PI")
    writer.close()
    await writer.wait_closed()
    await blocks.until(lambda: origin.journal and origin.journal[0].problem)
    assert origin.journal[0].problem.endswith("got b'PI' and the end")


async def test_each_connection_has_its_script_and_the_last_one_serves_the_rest(blocks):
    async def count(conversation) -> None:
        number = int(await conversation.expect(1))
        conversation.send(b"%d" % (number * 2))
        conversation.close()

    origin = await blocks.tcp_origin("reset", "send first\nclose", count)
    assert await talk(origin) == b"reset"
    assert await talk(origin) == b"first"
    assert [await talk(origin, b"%d" % number) for number in (2, 4)] == [b"4", b"8"]
    assert [one.number for one in origin.journal] == [1, 2, 3, 4]


async def test_faults_strike_its_connections(blocks):
    origin = await blocks.tcp_origin("send hello, world\nclose")
    origin.fault.connections.next().reset()
    origin.fault.connections.next().cut_body(5)
    assert [await talk(origin) for _ in range(3)] == [b"reset", b"hello", b"hello, world"]
    origin.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*origin.address)
    await origin.recover()
    assert await talk(origin) == b"hello, world"


async def test_a_script_that_fails_says_so(blocks):
    async def broken(conversation) -> None:
        raise ValueError("no")

    origin = await blocks.tcp_origin(broken)
    assert await talk(origin) == b"reset"
    with pytest.raises(Mismatch, match="the script failed: ValueError"):
        origin.verify()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("expect", "expect what"),
        ("say hello", "a step begins with"),
        ("send a\nwait soon", "line 2 .* is not a duration"),
        ("close now", "close takes nothing"),
        ("expect /(/", "is not a regular expression"),
        (r"send \x0", "an escape that is none"),
    ],
)
def test_a_transcript_that_means_nothing_is_refused_with_its_line(text: str, says: str):
    with pytest.raises(ConfigError, match=says):
        parse(text)


async def test_a_tcp_origin_without_a_script_is_refused(blocks):
    with pytest.raises(ConfigError, match="needs a script"):
        await blocks.tcp_origin()
