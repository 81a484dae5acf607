# a test has nobody to keep waiting
from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.http.certificate import certificate_in
from blocks.http.tls import Certificates, client_context, server_context


def names_in(certificate: Any) -> list[str]:
    return [value.lower() for _, value in certificate.get("subjectAltName", ())]


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        self.path = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.path)

    def issue(self, *names: str, file: str | None = None, **more: Any) -> tuple[str, str]:
        issued = self.ca.issue_cert(*names, **more)
        stem = file or names[0].replace("*", "_")
        certificate, key = str(self.folder / f"{stem}.pem"), str(self.folder / f"{stem}.key")
        Path(certificate).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Told(asyncio.Protocol):
    """Answers each line with who the client is; keeps every transport."""

    made: list[Told]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.made.append(self)

    def data_received(self, data: bytes) -> None:
        certificate = self.transport.get_extra_info("peercert") or {}
        self.transport.write(repr(names_in(certificate)).encode() + b"\n")  # type: ignore[attr-defined]


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    made: list[Told] = []
    protocol = type("Told", (Told,), {"made": made})
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in made:
            one.transport.abort()  # type: ignore[attr-defined]
        await asyncio.sleep(0)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self) -> str:
        self.writer.write(b"who?\n")
        return (await self.reader.readline()).decode().strip()

    @property
    def names(self) -> list[str]:
        return names_in(self.writer.get_extra_info("peercert"))

    @property
    def tls(self) -> Any:
        return self.writer.get_extra_info("ssl_object")


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext, name: str) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("b.test", "b.test"),
        ("x.wild.test", "*.wild.test"),
        ("exact.wild.test", "exact.wild.test"),
        ("x.y.wild.test", "a.test"),
        ("wild.test", "a.test"),
        ("unknown.test", "a.test"),
    ],
)
async def test_the_certificate_is_the_one_that_sni_asks_for(authority: Authority, asked: str, answered: str) -> None:
    certificates = [authority.issue(name) for name in ("a.test", "b.test", "*.wild.test", "exact.wild.test")]
    client = client_context(ca=authority.path)
    client.check_hostname = False
    async with listening(server_context(certificates)) as port, connected(port, client, asked) as connection:
        assert connection.names == [answered]
        assert connection.tls.selected_alpn_protocol() == "http/1.1"


async def test_a_client_without_sni_gets_the_first(authority: Authority) -> None:
    certificates = [authority.issue("127.0.0.1"), authority.issue("b.test")]
    async with (
        listening(server_context(certificates)) as port,
        connected(port, client_context(ca=authority.path), "127.0.0.1") as connection,
    ):
        assert connection.names == ["127.0.0.1"]


async def test_a_reload_serves_the_new_certificate_and_keeps_connections(authority: Authority) -> None:
    files = authority.issue("a.test", file="served")
    certificates = Certificates([files])
    client = client_context(ca=authority.path)
    async with listening(certificates.context) as port, connected(port, client, "a.test") as before:
        assert await before.ask() == "[]"
        serial = before.writer.get_extra_info("peercert")["serialNumber"]
        authority.issue("a.test", "new.test", file="served")
        certificates.reload()
        async with connected(port, client, "new.test") as after:
            assert after.names == ["a.test", "new.test"]
            assert after.writer.get_extra_info("peercert")["serialNumber"] != serial
        assert await before.ask() == "[]"


@pytest.mark.parametrize("harm", ["missing", "garbage", "mismatch", "empty"])
async def test_bad_files_never_replace_good_ones(authority: Authority, harm: str) -> None:
    certificate, key = authority.issue("a.test", file="served")
    certificates = Certificates([(certificate, key)])
    if harm == "missing":
        Path(certificate).unlink()
    elif harm == "garbage":
        Path(certificate).write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    elif harm == "empty":
        Path(certificate).write_text("")
    else:
        Path(key).write_bytes(Path(authority.issue("b.test")[1]).read_bytes())
    with pytest.raises(ConfigError, match="served"):
        certificates.reload()
    async with (
        listening(certificates.context) as port,
        connected(port, client_context(ca=authority.path), "a.test") as connection,
    ):
        assert connection.names == ["a.test"]


async def refused(port: int, context: ssl.SSLContext, name: str) -> bool:
    """With TLS 1.3 a client learns of a refusal only when it reads."""
    try:
        async with connected(port, context, name) as connection:
            return await connection.ask() == ""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_with_mutual_tls_the_client_shows_a_certificate_of_the_authority(
    authority: Authority, tmp_path: Path
) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Authority(other_folder)
    served = server_context([authority.issue("a.test"), authority.issue("b.test")], client_ca=authority.path)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with listening(served) as port:
        for host in ("a.test", "b.test"):
            known = client_context(ca=authority.path, certificate=authority.issue("alice.test"))
            async with connected(port, known, host) as connection:
                assert await connection.ask() == "['alice.test']"
            assert await refused(port, client_context(ca=authority.path), host)
            stranger = client_context(ca=authority.path, certificate=other.issue("mallory.test"))
            assert await refused(port, stranger, host)


async def test_a_client_certificate_may_be_optional(authority: Authority) -> None:
    certificates = Certificates([authority.issue("a.test")], client_ca=authority.path, required=False)
    async with (
        listening(certificates.context) as port,
        connected(port, client_context(ca=authority.path), "a.test") as connection,
    ):
        assert await connection.ask() == "[]"


async def test_a_new_client_authority_holds_from_the_reload_on(authority: Authority, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Authority(other_folder)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(authority.path).read_bytes())
    certificates = Certificates([authority.issue("a.test")], client_ca=str(trusted))
    alice = client_context(ca=authority.path, certificate=authority.issue("alice.test"))
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with listening(certificates.context) as port:
        async with connected(port, alice, "a.test") as connection:
            assert await connection.ask() == "['alice.test']"
        trusted.write_bytes(Path(other.path).read_bytes())
        certificates.reload()
        assert await refused(port, alice, "a.test")
        bob = client_context(ca=authority.path, certificate=other.issue("bob.test"))
        async with connected(port, bob, "a.test") as connection:
            assert await connection.ask() == "['bob.test']"


async def test_an_upstream_is_verified_unless_told_otherwise(authority: Authority) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with listening(server_context([authority.issue("a.test")])) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            async with connected(port, client_context(ca=authority.path), "b.test"):
                pass
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(port, client_context(), "a.test"):
                pass
        async with connected(port, client_context(verify=False), "b.test") as connection:
            assert await connection.ask() == "[]"


async def test_the_minimum_version_is_kept(authority: Authority) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    old = client_context(ca=authority.path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(server_context([authority.issue("a.test")], minimum="TLSv1.3")) as port:
        assert await refused(port, old, "a.test")
        async with connected(port, client_context(ca=authority.path), "a.test") as connection:
            assert connection.tls.version() == "TLSv1.3"


def encrypted(pair: tuple[str, str]) -> tuple[str, str]:
    key = Path(pair[1])
    loaded = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    return pair


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (lambda a: [("/no/such.pem", "/no/such.key")], "cannot read the certificate '/no/such.pem': No such file"),
        (lambda a: [(a.issue("a.test")[0], "/no/such.key")], "cannot read the key"),
        (lambda a: [(a.issue("a.test")[0], a.issue("b.test")[1])], "is not the one of the certificate"),
        (lambda a: [(a.issue("a.test")[1], a.issue("a.test")[1])], "cannot be used"),
        (lambda a: [encrypted(a.issue("a.test"))], "is encrypted"),
        (lambda a: [], "at least one certificate"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(
    authority: Authority, files: Callable[[Authority], Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Certificates(files(authority))


def test_wrong_settings_are_said(authority: Authority) -> None:
    with pytest.raises(ConfigError, match=r"TLSv1\.1"):
        server_context([authority.issue("a.test")], minimum="TLSv1.1")
    with pytest.raises(ConfigError, match=r"TLSv1\.1"):
        client_context(minimum="TLSv1.1")
    with pytest.raises(ConfigError, match="authority"):
        client_context(ca="/no/ca.pem")
    with pytest.raises(ConfigError, match="authority"):
        client_context(ca=authority.issue("a.test")[1])


@pytest.mark.parametrize(("days", "told"), [(-1, "certificate-expired"), (3, "certificate-expires-soon"), (40, None)])
def test_a_certificate_at_its_end_is_told(authority: Authority, days: int, told: str | None) -> None:
    ends = datetime.now(UTC) + timedelta(days=100)
    files = authority.issue("a.test", not_after=ends)
    clock = FakeClock(wall=ends.timestamp() - days * 86400)
    with events().captured() as seen:
        certificates = Certificates([files], clock=clock)
    assert [event["event"] for event in seen] == ([told] if told else [])
    assert certificates.expires == pytest.approx(ends.timestamp(), abs=1)


def test_names_and_end_are_those_of_the_certificate(authority: Authority) -> None:
    ends = datetime(2060, 2, 3, 4, 5, 6, tzinfo=UTC)
    files = authority.issue("A.test", "*.b.test", "127.0.0.1", "::1", not_after=ends)
    facts = certificate_in(Path(files[0]).read_text())
    assert facts.names == ["a.test", "*.b.test", "127.0.0.1", "::1"]
    assert facts.ends == ends.timestamp()
    assert certificate_in(authority.ca.cert_pem.bytes().decode()).ends > 0


@given(st.integers(0, 1500), st.binary(min_size=1, max_size=4))
@settings(max_examples=50)
def test_a_damaged_certificate_is_read_or_refused_but_never_breaks(at: int, damage: bytes) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(_SAMPLE))
    at %= len(der)
    der[at : at + len(damage)] = damage
    try:
        certificate_in(ssl.DER_cert_to_PEM_cert(bytes(der)))
    except ValueError:
        pass


_SAMPLE = trustme.CA().issue_cert("a.test").cert_chain_pems[0].bytes().decode()
