from __future__ import annotations

import pytest

from blocks.core.errors import ConfigError
from blocks.gateway.address import Addresses
from blocks.http.message import Peer, Request


def client(own: Addresses, peer: str, *fields: tuple[str, str]) -> str:
    return own.client(Request("GET", "/", fields, peer=Peer((peer, 1))))


def test_without_trust_only_the_peer_is_believed() -> None:
    own = Addresses()
    assert client(own, "192.0.2.1", ("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")) == "192.0.2.1"
    assert client(own, "::ffff:192.0.2.1") == "192.0.2.1"
    assert client(own, "fe80::1%eth0") == "fe80::1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("1.1.1.1, 203.0.113.1", "203.0.113.1"),
        ("1.1.1.1, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.1:4711", "203.0.113.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("garbage", "10.0.0.1"),
        ("203.0.113.1, garbage", "10.0.0.1"),
        ("", "10.0.0.1"),
        (",,,", "10.0.0.1"),
        ("127.1", "10.0.0.1"),
    ],
)
def test_the_first_from_the_right_that_is_not_trusted_is_the_client(value: str, expected: str) -> None:
    assert client(Addresses(["10.0.0.0/8"]), "10.0.0.1", ("x-forwarded-for", value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.1;proto=https", "203.0.113.1"),
        ('for="[2001:db8::1]:80"', "2001:db8::1"),
        ("for=1.1.1.1, for=203.0.113.1", "203.0.113.1"),
        ('for="a, for=203.0.113.1', "203.0.113.1"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_alike(value: str, expected: str) -> None:
    assert client(Addresses(["10.0.0.0/8"], "forwarded"), "10.0.0.1", ("forwarded", value)) == expected


def test_repeated_lines_are_one_list() -> None:
    own = Addresses(["10.0.0.0/8"])
    assert client(own, "10.0.0.1", ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.1")) == "203.0.113.1"


def test_buckets_are_prefixes() -> None:
    own = Addresses(ipv6_prefix=56, ipv4_prefix=24)
    assert own.bucket("2001:db8:0:12ff::1") == "2001:db8:0:1200::/56"
    assert own.bucket("192.0.2.77") == "192.0.2.0/24"
    assert own.bucket("unix") == "unix"


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(ConfigError):
        Addresses(["10.0.0.0/99"])
    with pytest.raises(ConfigError):
        Addresses(ipv6_prefix=0)
