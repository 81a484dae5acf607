"""What the gateway routes by is what the service sees: no spelling of a closed path or host gets to a service that reads it otherwise."""

from __future__ import annotations

import asyncio
import posixpath
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import h11
import pytest

from blocks.gateway import Gateway, route
from blocks.http import Server, Upstream
from blocks.http.message import Request, Response
from gateway.gateway_kit import until
from gateway.redis_peer import free_port

pytestmark = pytest.mark.integration

BEFORE = ["", "/", "//", "/.", "/./", "/%2e/", "/x/..", "/x/../", "/x/%2E%2e/", "/x/.%2e/", "/x//../", "/a/b/../..", "/;/", "/x;/../", "/..;/",
          "/x/..;/", "/%2f", "/x%2f..", "/x/..%2f", "/\\", "/x\\..\\", "/%5c", "/%c0%af", "/x/%c0%ae%c0%ae/", "/%u002e/", "/%252e%252e/",
          "http://other.example", "http://other.example/x/..", "/\t", "/%09", "/%00", "/%20", "/x/%2e%2e%2f", "/.%00./", "/x/. ./"]  # fmt: skip
NAMES = ["/admin", "admin", "/%61dmin", "/admi%6e", "/%61%64%6d%69%6e", "/admin/", "/admin/.", "/admin/x", "/admin;x=1", "/admin%3bx", "/admin%20",
         "/admin%00", "/admin%2f", "/admin?x", "/admin#x", "/admin/..;/admin", "/admin//", "/%2561dmin", "/admin%23", "/admin%3f", "/a%64min/../admin"]  # fmt: skip
HOSTS = ["internal.example", "INTERNAL.example", "internal.example.", "internal.example:80", "internal.example.:80", " internal.example",
         "internal.example ", "internal.example\t", "internal%2eexample", "internal.example,a", "a,internal.example", "internal.example/", "x@internal.example",
         "internal.example..", "[internal.example]", "internal\u3002example", "http://internal.example", "internal.example:80:80"]  # fmt: skip


async def closed(request: Request) -> Response:
    return Response(403, body=b"closed")


def gateway(service: Upstream, *, host: bool = False) -> Gateway:
    routes = [route("/admin", closed), route("/{rest:path}", service)]
    return Gateway([*([route("/{rest:path}", closed, host="internal.example")] if host else []), *routes])


async def said(server: Server, data: bytes) -> tuple[int, bytes]:
    """The status and body of the answer to raw bytes; 0 when the connection just ended."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def raw(target: str, host: str = "a.example", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode()


def targets() -> Iterable[str]:
    return dict.fromkeys(before + name for before, name in product(BEFORE, NAMES))


NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} default_server; server_name _;
    location = /admin {{ return 200 "SECRET $request_uri"; }}
    location ^~ /admin/ {{ return 200 "SECRET $request_uri"; }}
    location / {{ return 200 "fine $uri"; }}
  }}
  server {{ listen 127.0.0.1:{port}; server_name internal.example; location / {{ return 200 "SECRET $host"; }} }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[str]:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen([binary, "-c", str(config), "-e", str(folder / "error.log")], stderr=subprocess.DEVNULL)

    async def up() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(up, every=0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def test_no_spelling_of_a_closed_path_gets_to_nginx(tmp_path: Path) -> None:
    async with nginx(tmp_path) as url, Server(gateway(Upstream(url)), "127.0.0.1:0") as server:
        status, body = await said(server, raw("/x/../open"))
        assert (status, body) == (200, b"fine /open")
        leaked, passed = [], 0
        for target in targets():
            status, body = await said(server, raw(target))
            passed += status == 200
            if b"SECRET" in body or status >= 500:
                leaked.append((target, status, body))
        assert leaked == []
        assert passed > 20, "what is another path gets through"


async def test_no_spelling_of_a_closed_host_gets_to_nginx(tmp_path: Path) -> None:
    async with nginx(tmp_path) as url, Server(gateway(Upstream(url), host=True), "127.0.0.1:0") as server:
        assert (await said(server, raw("/")))[0] == 200
        tricks = [raw("/", host) for host in HOSTS]
        tricks += [
            raw("http://internal.example/", "a.example"),
            raw("http://a.example/", "internal.example"),
            raw("HTTP://INTERNAL.example./x"),
        ]
        tricks += [raw("/", "a.example", "Host: internal.example\r\n"), raw("/", "a.example", " internal.example\r\n"),
                   raw("/", "a.example", "X-Forwarded-Host: internal.example\r\nForwarded: host=internal.example\r\n"),
                   b"GET / HTTP/1.0\r\nHost : internal.example\r\n\r\n", b"GET / HTTP/1.1\r\nhost:internal.example\r\nHost: a\r\n\r\n"]  # fmt: skip
        leaked = [(trick, answer) for trick in tricks if b"SECRET" in (answer := await said(server, trick))[1]]
        assert leaked == []


class Reader(asyncio.Protocol):
    """A service that reads with h11 and notes the targets and hosts that it sees."""

    def __init__(self, seen: list[tuple[str, str]]) -> None:
        self._seen = seen
        self._parser = h11.Connection(h11.SERVER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.receive_data(data)
        while type(event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED, h11.ConnectionClosed):
            if isinstance(event, h11.Request):
                host = next((value for name, value in event.headers if name == b"host"), b"")
                self._seen.append((event.target.decode("latin-1"), host.decode("latin-1")))
            if isinstance(event, h11.EndOfMessage):
                sent = self._parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                self._transport.write((sent or b"") + (self._parser.send(h11.EndOfMessage()) or b""))  # type: ignore[attr-defined]
                self._parser.start_next_cycle()


def readings(target: str) -> set[str]:
    """The path as services of different makes read it: decoded before or after it is split and resolved, ``;`` cut off, ``\\`` for ``/``."""
    path = target.partition("?")[0].partition("#")[0]
    cut = "/".join(
        part.partition(";")[0] for part in path.split("/")
    )  # parameters go before escapes are decoded (Servlet 6.0 §3.5)
    found = {path, cut, unquote(path, "latin-1"), unquote(cut, "latin-1")}
    found |= {one.replace("\\", "/") for one in found} | {one.partition("\0")[0] for one in found}
    found |= {posixpath.normpath(one) for one in found}
    return {"/" + one.lstrip("/") for one in found}


async def test_no_service_reads_a_closed_path_out_of_what_it_gets() -> None:
    seen: list[tuple[str, str]] = []
    loop = asyncio.get_running_loop()
    service = await loop.create_server(lambda: Reader(seen), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{service.sockets[0].getsockname()[1]}"
    try:
        async with Server(gateway(Upstream(url)), "127.0.0.1:0") as server:
            for target in targets():
                assert (await said(server, raw(target)))[0] in (200, 400, 403, 404)
    finally:
        service.close()
        await service.wait_closed()
    assert len(seen) > 20
    for target, host in seen:
        assert target.startswith("/"), "only the origin form goes to services"
        assert host == "a.example" or host.startswith("other.example")
        wrong = [one for one in readings(target) if one == "/admin" or one.startswith("/admin/")]
        assert wrong == [], target
