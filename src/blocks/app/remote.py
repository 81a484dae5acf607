"""A process is asked by its admin API: where that is, who we are, one request and its answer. Sockets and nothing else: a probe is quick.

An answer of several workers is theirs, one by one; ``Answer.each`` gives them alike.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from blocks.core.errors import BlocksError, ConfigError

DEFAULT = "http://127.0.0.1:9900"
_MOST = 64 * 1024 * 1024  # bytes of an answer
_HEAD = 64 * 1024  # bytes of its head


class Unreachable(BlocksError):
    """Nobody answers there, or something that is no admin API does."""


class Answer(NamedTuple):
    """``body`` is plain data when it came as JSON, else text."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def each(self) -> list[tuple[int, Any]]:
        """(status, body) of every worker, or of the only process."""
        if isinstance(self.body, dict) and isinstance(self.body.get("workers"), list):
            return [(int(one["status"]), one["body"]) for one in self.body["workers"]]
        return [(self.status, self.body)]


class Remote:
    """One admin API. ``url`` is ``http://HOST:PORT`` or ``unix:PATH``; ``timeout`` seconds bound the whole of a request."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        self.url = url
        self._token = token
        self.timeout = timeout
        self._address, self._host = _address(url)

    def ask(self, method: str, path: str) -> Answer:
        """One request without a body. Raises ``Unreachable``."""
        head = [f"{method} {path} HTTP/1.0", f"Host: {self._host}", "Accept: application/json"]
        if method != "GET":
            head.append("Content-Length: 0")
        if self._token is not None:
            head.append(f"Authorization: Bearer {self._token}")
        request = "\r\n".join([*head, "", ""]).encode()
        try:
            with closing(self._connect()) as sock:
                sock.sendall(request)
                data = _read(sock)
        except (OSError, ValueError) as error:
            why = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error) or "it timed out"
            )
            raise Unreachable(f"nothing answers at {self.url}: {why}") from error
        return _parse(data, self.url)

    def _connect(self) -> socket.socket:
        if isinstance(self._address, tuple):
            return socket.create_connection(self._address, self.timeout)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        return sock


def _address(url: str) -> tuple[tuple[str, int] | str, str]:
    """(where to connect, what to say as Host)."""
    if url.startswith("unix:"):
        return url[5:].removeprefix("//"), "localhost"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address of an admin API: {error}") from None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path not in ("", "/"):
        raise ConfigError(f"{url!r} is no address of an admin API; write {DEFAULT} or unix:PATH")
    return (parts.hostname, port), parts.netloc.rpartition("@")[2]


def _read(sock: socket.socket) -> bytes:
    parts, size = [], 0
    while data := sock.recv(256 * 1024):
        parts.append(data)
        size += len(data)
        if size > _MOST:
            raise ValueError(f"the answer has more than {_MOST} bytes")
    return b"".join(parts)


def _parse(data: bytes, url: str) -> Answer:
    head, _, content = data.partition(b"\r\n\r\n")
    lines = head[:_HEAD].decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        raise Unreachable(f"what answers at {url} does not speak HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body: Any = content.decode("utf-8", "replace")
    if headers.get("content-type", "").startswith("application/json"):
        try:
            body = json.loads(content)
        except ValueError:
            raise Unreachable(f"the answer of {url} broke off") from None
    return Answer(int(words[1]), headers, body)


def find(admin: str | None, ports_file: str | None) -> str:
    """Where the admin API is: as said, else as the ports file of a running process says, else the default. Raises ``ConfigError``."""
    if admin is not None:
        return admin
    if ports_file is None:
        return DEFAULT
    try:
        line = json.loads(Path(ports_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{ports_file} is not the ports file of a running process: {error}") from None
    found = line.get("admin") if isinstance(line, dict) else None
    if not isinstance(found, str):
        raise ConfigError(f"{ports_file}: that process has no admin API; start it with --admin 127.0.0.1:9900")
    return found


def read_token(path: str | None, value: str | None) -> str | None:
    """The token to show: of the file, or the value itself. Raises ``ConfigError``."""
    if path is None:
        return value or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the admin token cannot be read: {error}") from None
