"""Compressors of one shape: gzip from the standard library; br and zstd from the extra ``compress``, imported when first asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

from blocks.core.errors import ConfigError, MissingExtra


class Coder(Protocol):
    """One body's compressor."""

    def code(self, data: bytes) -> bytes:
        """What is ready of it; may be empty."""
        ...

    def flush(self) -> bytes:
        """Everything that was given so far, so that a reader can decode it now."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


class _Gzip:
    """RFC 1952; no time and no name in its head, so that equal bodies have equal bytes."""

    __slots__ = ("_object", "code")

    def __init__(self, level: int) -> None:
        self._object = zlib.compressobj(level, zlib.DEFLATED, 31)
        self.code = self._object.compress

    def flush(self) -> bytes:
        return self._object.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._object.flush(zlib.Z_FINISH)


class _Brotli:
    """RFC 7932, with a window of 256 KiB: 1 MiB a stream instead of 10."""

    __slots__ = ("_object",)

    def __init__(self, level: int) -> None:
        import brotli

        self._object: Any = brotli.Compressor(quality=level, lgwin=18)

    def code(self, data: bytes) -> bytes:
        return bytes(self._object.process(data))

    def flush(self) -> bytes:
        return bytes(self._object.flush())

    def finish(self) -> bytes:
        return bytes(self._object.finish())


class _Zstd:
    """RFC 8878, with a window of 256 KiB; RFC 9659 allows 8 MiB at most."""

    __slots__ = ("_flush", "_object", "code")

    def __init__(self, level: int) -> None:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=18)
        self._object = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self.code = self._object.compress

    def flush(self) -> bytes:
        return self._object.flush(self._flush)

    def finish(self) -> bytes:
        return self._object.flush()


# coding: (maker, library, level). Levels: gzip 5 and zstd 3 are Caddy's, br 4 is the highest that costs about what gzip 5 does.
_CODERS: dict[str, tuple[Callable[[int], Coder], str, int]] = {
    "gzip": (_Gzip, "zlib", 5),
    "br": (_Brotli, "brotli", 4),
    "zstd": (_Zstd, "zstandard", 3),
}


def coder_maker(coding: str, level: int | None = None) -> Callable[[], Coder]:
    """A function that makes a compressor of ``coding``. Raises ``ConfigError`` for an unknown one, ``MissingExtra`` without its library."""
    if coding not in _CODERS:
        raise ConfigError(f"{coding!r} is no content coding; it is one of {', '.join(_CODERS)}")
    make, library, usual = _CODERS[coding]
    chosen = usual if level is None else level
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise MissingExtra(f"the content coding {coding}", "compress")
    return lambda: make(chosen)
