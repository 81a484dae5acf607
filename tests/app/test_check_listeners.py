"""What the rules say of two addresses is what the operating system says."""

from __future__ import annotations

import socket
from itertools import combinations_with_replacement

import pytest

from blocks.app.sense.graph import Graph
from blocks.app.sense.listeners import listeners, taken_twice
from blocks.app.sense.view import View
from blocks.app.tables import StackTable
from blocks.http.message import Request, Response
from blocks.http.server import CannotBind, Server

HOSTS = ["127.0.0.1", "0.0.0.0", "127.0.0.2", "localhost", "[::1]", "[::]"]


async def nobody(request: Request) -> Response:
    return Response(204)


def free_port() -> int:
    """A port that is free on all addresses."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def clash(one: str, other: str) -> bool:
    tables = {"servers": {"a": {"listen": one, "handler": "x"}, "b": {"listen": other, "handler": "x"}}}
    graph = Graph(View(tables, StackTable))
    assert len(listeners(graph.view)) == 2
    return bool(list(taken_twice(graph)))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("one", "other"), list(combinations_with_replacement(HOSTS, 2)))
async def test_two_addresses_clash_as_they_do_in_truth(one: str, other: str) -> None:
    said = clash(f"{one}:8080", f"{other}:8080")
    for _ in range(5):  # somebody else may have taken the port since it was free
        if await refused(one, other, free_port()) == said:
            return
    pytest.fail(f"{one} and {other} clash: the rules say {said}, the system does not")


async def refused(one: str, other: str, port: int) -> bool:
    try:
        async with Server(nobody, f"{one}:{port}"), Server(nobody, f"{other}:{port}"):
            return False
    except CannotBind:
        return True


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (":8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "127.0.0.1:8081", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/run/a.sock", "unix:///run/a.sock", True),
        ("unix:/run/a.sock", "unix:/run/b.sock", False),
        ("unix:/run/a.sock", "127.0.0.1:8080", False),
        ("app.example:80", "0.0.0.0:80", True),
        ("app.example:80", "127.0.0.1:80", False),
    ],
)
def test_other_addresses(one: str, other: str, wanted: bool) -> None:
    assert clash(one, other) == wanted
