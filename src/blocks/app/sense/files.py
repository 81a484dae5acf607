"""What the stack reads besides its file: certificates, tokens, folders for logs, and Python that it imports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from blocks.core.config.complaint import At, Complaint
from blocks.core.config.suggest import suggestion

from .graph import Graph
from .view import View

TOKEN = 16  # characters that an admin token has at least


def missing(graph: Graph) -> Iterator[Complaint]:
    """Files that are not there or cannot be read, and folders that are not there."""
    view = graph.view
    for at, text in _files(view):
        said = _readable(view.folder(at) / text)
        if said:
            yield Complaint(at, f"the file {text!r} {said}")
    for at, _ in view.tables_of("servers"):
        log = view.text((*at, "access_log"))
        if view.given((*at, "access_log")) and log not in (None, "off", "-"):
            yield from _folder((*at, "access_log"), str(log), view)
    ports = view.text(("process", "ports_file"))
    if ports is not None:
        yield from _folder(("process", "ports_file"), ports, view)


def _files(view: View) -> Iterator[tuple[At, str]]:
    places: list[At] = [("process", "admin_token_file")]
    for kind, keys in (("servers", ()), ("upstreams", ()), ("brokers", ("token_file", "webhooks"))):
        for at, table in view.tables_of(kind):
            places += [(*at, key) for key in keys]
            found = table.get("tls")
            homes: list[At] = [(*at, "tls")]
            if isinstance(found, list):
                homes = [(*at, "tls", number) for number in range(len(found))]
            places += [(*home, key) for home in homes for key in ("cert", "key", "client_ca", "ca")]
    for place in places:
        text = view.text(place) if view.given(place) else None
        if text is not None:
            yield place, text


def _readable(path: Path) -> str:
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _folder(at: At, text: str, view: View) -> Iterator[Complaint]:
    if not (view.folder(at) / text).parent.is_dir():
        yield Complaint(
            at, f"there is no folder {os.path.dirname(text) or '.'!r} to write {os.path.basename(text)!r} in"
        )


def certificates(graph: Graph) -> Iterator[Complaint]:
    """A certificate and a key that do not belong together, or are none."""
    view = graph.view
    for at, table in view.tables_of("servers", "brokers"):
        found = table.get("tls")
        homes: list[At] = (
            [(*at, "tls", number) for number in range(len(found))] if isinstance(found, list) else [(*at, "tls")]
        )
        for home in homes:
            cert, key = view.raw((*home, "cert")), view.raw((*home, "key"))
            base = view.folder(home)
            if not (isinstance(cert, str) and isinstance(key, str)) or _readable(base / cert) or _readable(base / key):
                continue
            import ssl  # 10 ms that a stack without TLS does not pay

            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(base / cert, base / key, _no_password)
            except (ssl.SSLError, OSError) as error:
                words = getattr(error, "reason", "") or str(error)
                known = {
                    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
                    "PEM_LIB": "is not a PEM file",
                }
                said = next((said for word, said in known.items() if word in words.upper().replace(" ", "_")), words)
                yield Complaint((*home, "cert"), f"{cert} and {key}: {said}")


def _no_password() -> str:
    import ssl

    raise ssl.SSLError("the key is encrypted; a process that starts by itself cannot ask for its password")


def tokens(graph: Graph) -> Iterator[Complaint]:
    """An admin token that is too short, or that everybody on the machine may change."""
    view = graph.view
    at: At = ("process", "admin_token_file")
    text = view.text(at) if view.given(at) else None
    if text is None or _readable(view.folder(at) / text):
        return
    path = view.folder(at) / text
    if len(path.read_bytes()[:4096].strip()) < TOKEN:
        yield Complaint(at, f"{text}: an admin token has at least {TOKEN} characters")
    if os.name == "posix" and path.stat().st_mode & 0o002:
        said = f"{text} may be changed by every user of the machine; chmod o-w"
        yield Complaint(at, said, "warning")


def imports(graph: Graph) -> Iterator[Complaint]:
    """Applications and handlers that cannot be imported. Importing runs their modules, as starting the stack does."""
    view = graph.view
    for at, table in view.tables_of("apps"):
        given = [key for key in ("asgi", "python") if key in table]
        if len(given) != 1:
            if view.absent((*at, "asgi")) or view.absent((*at, "python")) or given:
                yield Complaint(
                    at, f"has {'both' if given else 'none'} of asgi and python; exactly one says what it is"
                )
            continue
        place: At = (*at, given[0])
        words = table[given[0]]
        said = importable(words, view.folder(at)) if isinstance(words, str) else ""
        if said:
            yield Complaint(place, said)


def importable(words: str, folder: Path) -> str:
    """Why ``module:attribute`` cannot be loaded, or "" when it can; modules are looked for in ``folder``, too."""
    module, colon, name = words.partition(":")
    if not (colon and module and name):
        return f"{words!r} is not understood; write it like mypackage.services:app"
    beside = str(folder.resolve())
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        found: Any = import_module(module)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        return f"{words!r} cannot be imported: {kind}{error}"
    for part in name.split("."):
        if not hasattr(found, part):
            public = [one for one in vars(found) if not one.startswith("_")] if hasattr(found, "__dict__") else []
            return f"{module} has no {part!r}{suggestion(part, public)}"
        found = getattr(found, part)
    return "" if callable(found) else f"{words!r} is not callable: it is {type(found).__name__}"
