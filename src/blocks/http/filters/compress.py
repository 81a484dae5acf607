"""Responses are compressed for clients that ask for it, as they stream, with back-pressure (RFC 9110 §8.4).

Never what is coded already, partial, marked no-transform or small; never so that an event of a stream waits. Secrets and
input of an attacker in one compressed body can leak the secret (BREACH): leave such paths out of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from blocks.core.errors import ConfigError
from blocks.core.metrics import Reading
from blocks.core.quantities import size

from ..body import Stream
from ..handler import Handler
from ..message import Headers, Request, Response
from .coders import Coder, coder_maker
from .negotiation import TYPES, Types, choose_coding, coded_headers, may_code, vary_by_encoding
from .relay import Relay

_AT_ONCE = 64 * 1024  # bytes that are compressed in one go: 1 ms of the loop; longer bodies in such steps


class Compress:
    """A filter that codes responses with the best of ``codings`` that the client takes (the first among equals).

    ``gzip`` needs nothing; ``br`` and ``zstd`` need ``blocks[compress]``. ``levels`` overrides a coding's level. Bodies under ``minimum``
    bytes stay plain (Caddy: 512; below, the head outweighs the gain). ``types`` are patterns of media types. At most ``streams`` bodies
    of unknown end are compressed at a time (0.3–1 MiB each); what comes on top is sent plain.
    """

    direct = True
    name = "compress"

    def __init__(
        self,
        codings: Sequence[str] = ("gzip",),
        *,
        minimum: int | str = 512,
        types: Iterable[str] = TYPES,
        levels: Mapping[str, int] | None = None,
        streams: int = 512,
    ) -> None:
        if not codings or isinstance(codings, str):
            raise ConfigError("codings is a list of content codings, the best first: gzip, br, zstd")
        self._makers = {coding: coder_maker(coding, (levels or {}).get(coding)) for coding in codings}
        self._codings = tuple(codings)
        self._minimum = size(minimum)
        self._types = Types(types)
        self._streams = streams
        self.active = 0
        self.coded = 0

    def readings(self) -> Iterator[Reading]:
        """Its figures for the metrics."""
        yield Reading("blocks_http_compressed_responses_total", "counter", "Responses compressed.", (), self.coded)
        yield Reading("blocks_http_compressing_streams", "gauge", "Streams being compressed now.", (), self.active)

    async def __call__(self, request: Request, next: Handler) -> Response:
        """The response, coded when it may be and the client takes it."""
        derived = request.headers.section.derived
        coding = derived.get(self, False)
        if coding is False:
            coding = derived[self] = self._choose(request.headers)
        response = await next(request)
        headers = response.headers
        if not may_code(response.status, headers, self._types) or not self._worthwhile(request, response):
            return response
        vary_by_encoding(headers)
        if coding is None or (isinstance(response.body, Stream) and self.active >= self._streams):
            return response
        self.coded += 1
        if request.method == "HEAD":
            coded_headers(headers, coding)  # as for GET, but the length that GET would have is not known
            response.discard()
            response.body = b""
            return response
        response.body = self._coded(response, self._makers[coding]())
        coded_headers(headers, coding)
        return response

    def _choose(self, headers: Headers) -> str | None:
        if b"no-transform" in (headers.find(b"cache-control") or b"").lower():
            return None
        accepted = headers.find(b"accept-encoding")
        return None if accepted is None else choose_coding(accepted.decode("latin-1"), self._codings)

    def _worthwhile(self, request: Request, response: Response) -> bool:
        body = response.body
        if isinstance(body, Stream):
            return body.length is None or body.length >= self._minimum
        if not isinstance(body, bytes):
            return False
        if request.method == "HEAD":
            declared = response.headers.find(b"content-length")
            return declared is None or (declared.isdigit() and int(declared[:18]) >= self._minimum)
        return len(body) >= self._minimum

    def _coded(self, response: Response, coder: Coder) -> bytes | Stream:
        body = response.body
        if isinstance(body, Stream):
            events = (response.headers.find(b"content-type") or b"").lower().startswith(b"text/event-stream")
            return _Coding(self, body, coder, events or body.length is None).start()
        if len(body) <= _AT_ONCE:
            return coder.code(body) + coder.finish()
        return Stream.of(_steps(body, coder))


async def _steps(body: bytes, coder: Coder) -> AsyncIterator[bytes]:
    """A long body in steps, between which the loop serves others."""
    for at in range(0, len(body), _AT_ONCE):
        if data := coder.code(body[at : at + _AT_ONCE]):
            yield data
        await asyncio.sleep(0)
    yield coder.finish()


class _Coding(Relay):
    """Compresses what passes. ``prompt``: every chunk can be decoded when it arrives (events; bodies that are made as they go)."""

    __slots__ = ("_coder", "_owner", "_prompt")

    def __init__(self, owner: Compress, inner: Stream, coder: Coder, prompt: bool) -> None:
        super().__init__(inner)
        self._coder = coder
        self._owner = owner
        self._prompt = prompt
        owner.active += 1
        inner.watch(self._ended)

    def write(self, data: bytes) -> None:
        out = self._coder.code(data)
        if self._prompt:
            out += self._coder.flush()
        self.stream.feed(out)

    def end(self, trailers: Headers | None) -> None:
        self.stream.feed(self._coder.finish())
        self.stream.finish(trailers)

    def _ended(self, error: BaseException | None) -> None:
        self._owner.active -= 1
