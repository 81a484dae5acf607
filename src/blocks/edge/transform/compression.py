"""A stored body is compressed once for each coding that clients ask for (RFC 9110 §8.4, §12.5.3), then served as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from blocks.core.errors import ConfigError
from blocks.core.quantities import size
from blocks.http.filters.coders import coder_maker
from blocks.http.filters.negotiation import TYPES, Types, choose_coding, coded_headers, may_code, vary_by_encoding
from blocks.http.message import Headers, Pair, Section

LEVELS = {"gzip": 6, "br": 5, "zstd": 6}  # one step above what streams get: here the work is done once and used often
MINIMUM = 512  # bytes (Caddy); below, the head outweighs the gain
MAXIMUM = 16 * 1024 * 1024  # bytes; above, a file that is so large should come compressed from its origin


class Compression:
    """A ``Transform`` to the best of ``codings`` that a client takes, the first among equals.

    ``gzip`` needs nothing, ``br`` and ``zstd`` need ``blocks[compress]`` (``MissingExtra``). Only what is whole, of ``types``, not coded
    yet, not ``no-transform``, and between ``minimum`` and ``MAXIMUM`` bytes; the original stays where coding does not make it smaller.
    """

    def __init__(
        self, codings: Sequence[str] = ("br", "zstd", "gzip"), *, types: Iterable[str] = TYPES, minimum: int | str = MINIMUM,
        levels: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        if isinstance(codings, str) or not codings:
            raise ConfigError("codings is a list of content codings, the best first: br, zstd, gzip")
        chosen = {**LEVELS, **(levels or {})}
        self._makers = {coding: coder_maker(coding, chosen.get(coding)) for coding in codings}
        self._codings = tuple(codings)
        self._types = Types(types)
        self._minimum = size(minimum)

    def variants(self, section: Section, status: int) -> bool:
        """Whether a response with those fields may be coded at all."""
        return may_code(status, Headers.of(section), self._types)

    def choose(self, accept_encoding: bytes | None, section: Section | None = None) -> str:
        """The coding for a client: "" for none."""
        if accept_encoding is None:
            return ""
        return choose_coding(accept_encoding.decode("latin-1"), self._codings) or ""

    def apply(self, coding: str, pairs: list[Pair], body: bytes) -> tuple[list[Pair], bytes] | None:
        """The fields and body in that coding: ETag weak, Vary named, digests of the plain bytes gone. None: leave the original."""
        if not self._minimum <= len(body) <= MAXIMUM:
            return None
        coder = self._makers[coding]()
        coded = coder.code(body) + coder.finish()
        if len(coded) >= len(body):
            return None
        headers = Headers.of(Section(list(pairs)))
        coded_headers(headers, coding)
        vary_by_encoding(headers)
        return headers.raw, coded

    def vary(self, pairs: list[Pair]) -> list[Pair]:
        """The fields of the plain form, which must name Accept-Encoding in Vary as the coded ones do (RFC 9110 §12.5.5)."""
        headers = Headers.of(Section(list(pairs)))
        vary_by_encoding(headers)
        return headers.raw
