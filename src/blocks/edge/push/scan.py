"""A folder as a release: every file hashed, given its fields, and refused if it would leave the folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Literal, NamedTuple

from blocks.core.errors import ConfigError

from . import manifest as manifests
from .manifest import File, Manifest, digest_field
from .rules import Rule, fields_of

_STEP = 1024 * 1024  # bytes


class Scanned(NamedTuple):
    """A release and where its objects are: path by object name."""

    manifest: Manifest
    places: dict[str, str]


class Terms(NamedTuple):
    """How a release answers: see ``Manifest``. ``rules`` add fields to files."""

    site: str = "default"
    prefix: str = "/"
    hosts: tuple[str, ...] = ()
    miss: Literal["404", "pull"] = "404"
    fallback: str = ""
    rules: tuple[Rule, ...] = ()


def scan(
    folder: str, release: str, terms: Terms | None = None, progress: Callable[[int], None] = lambda size: None
) -> Scanned:
    """The release that a folder holds. Names that begin with a dot are left out, ``.well-known`` (RFC 8615) is not.

    ``/404.html`` becomes the body of 404s. Raises ``ConfigError`` for a link that leads out of the folder, an empty folder,
    a name that no URL can have.
    """
    terms = terms or Terms()
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise ConfigError(f"{folder} is not a folder")
    files: list[File] = []
    places: dict[str, str] = {}
    for relative, place in _files(root):
        path = terms.prefix + relative.replace(os.sep, "/")
        manifests.check_path(path)
        digest, size = _digest(place, progress)
        files.append(File(path, digest_field(digest), size, fields_of(path, list(terms.rules))))
        places[digest.hex()] = place
    if not files:
        raise ConfigError(f"{folder} holds no files to push")
    files.sort(key=lambda file: file.path)
    page = terms.prefix + "404.html"
    manifest = Manifest(
        release, files, terms.site, terms.prefix, list(terms.hosts), terms.miss,
        page if any(file.path == page for file in files) else "", terms.fallback,
    )  # fmt: skip
    manifests.check(manifest)
    return Scanned(manifest, places)


def size_of(folder: str) -> int:
    """Bytes that ``scan`` will read, for a progress bar."""
    return sum(os.path.getsize(place) for _, place in _files(os.path.realpath(folder)))


def _files(root: str) -> Iterator[tuple[str, str]]:
    for where, folders, names in os.walk(root):
        for folder in folders:
            if os.path.islink(os.path.join(where, folder)):
                raise ConfigError(f"{os.path.join(where, folder)} is a link to a folder; push the folder itself")
        folders[:] = sorted(name for name in folders if not name.startswith(".") or name == ".well-known")
        for name in sorted(names):
            if name.startswith(".") and os.path.basename(where) != ".well-known":
                continue
            place = os.path.realpath(os.path.join(where, name))
            if os.path.commonpath([root, place]) != root:
                raise ConfigError(f"{os.path.join(where, name)} is a link out of the folder, to {place}")
            if not os.path.isfile(place):
                raise ConfigError(f"{os.path.join(where, name)} is not a file")
            yield os.path.relpath(os.path.join(where, name), root), place


def _digest(place: str, progress: Callable[[int], None]) -> tuple[bytes, int]:
    digest, size = sha256(), 0
    with open(place, "rb") as file:
        while data := file.read(_STEP):
            digest.update(data)
            size += len(data)
            progress(len(data))
    return digest.digest(), size
