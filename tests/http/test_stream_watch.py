"""Whoever counts what is under way hears of a body's end once, whichever way it ends."""

import pytest

from blocks.core.errors import UpstreamFault
from blocks.http.body import Stream
from blocks.http.tunnel import OutboundTunnel


def watched() -> tuple[Stream, list[BaseException | None]]:
    stream, told = Stream(), []
    stream.watch(told.append)
    return stream, told


def test_a_complete_body_is_told_once_without_an_error() -> None:
    stream, told = watched()
    stream.feed(b"x")
    assert told == []
    stream.finish()
    stream.cancel()
    assert told == [None]


def test_a_body_that_breaks_off_tells_why() -> None:
    stream, told = watched()
    error = UpstreamFault("reset")
    stream.fail(error)
    stream.finish()
    assert told == [error]


def test_a_reader_that_gives_up_is_no_error_of_the_source() -> None:
    stream, told = watched()
    stream.cancel()
    stream.cancel()
    assert told == [None]


def test_a_body_that_has_ended_tells_at_once() -> None:
    stream = Stream()
    stream.finish()
    told: list[BaseException | None] = []
    stream.watch(told.append)
    assert told == [None]


def test_all_watchers_are_told_in_order() -> None:
    stream, told = Stream(), []
    stream.watch(lambda _: told.append("inner"))
    stream.watch(lambda _: told.append("outer"))
    stream.finish()
    assert told == ["inner", "outer"]


async def test_an_iteration_that_is_left_tells() -> None:
    stream, told = watched()
    stream.feed(b"x")
    reading = stream.__aiter__()
    assert await anext(reading) == b"x"
    await reading.aclose()  # type: ignore[attr-defined]  # a generator
    assert told == [None]
    with pytest.raises(RuntimeError):
        await stream.read()


class Transport:
    """As much of a transport as a tunnel asks for."""

    def pause_reading(self) -> None: ...


def test_a_tunnel_tells_when_the_upstreams_connection_is_gone() -> None:
    gone: list[OutboundTunnel] = []
    told: list[BaseException | None] = []
    tunnel = OutboundTunnel(Transport(), b"", gone.append)  # type: ignore[arg-type]  # all that is needed here
    tunnel.watch(told.append)
    tunnel.connection_lost(ConnectionResetError())
    tunnel.connection_lost(None)
    assert told == [None]
    assert gone[0] is tunnel
