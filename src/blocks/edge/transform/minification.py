"""JavaScript, CSS, HTML and JSON lose what only people read, once, before they are stored; whatever fails is stored as it came.

Not for files that pages name with ``integrity=`` (Subresource Integrity): their bytes must not change. So it is off unless asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec

from blocks.core.errors import ConfigError, MissingExtra
from blocks.http.message import Headers, Pair, Section

MAXIMUM = 1024 * 1024  # bytes; a page or script above it is no page or script for people
_LIBRARIES = {"js": "rjsmin", "css": "rcssmin", "html": "minify_html"}
_TYPES = {
    b"text/javascript": "js", b"application/javascript": "js", b"application/x-javascript": "js",
    b"text/css": "css", b"text/html": "html", b"application/json": "json", b"application/manifest+json": "json",
    b"application/ld+json": "json",
}  # fmt: skip
_JSON_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
_DIGESTS = (b"content-digest", b"repr-digest", b"digest", b"content-md5", b"content-length", b"etag")


class Minification:
    """A ``Transform`` of ``kinds`` (js, css, html, json) on their way into the store; js, css and html need ``blocks[minify]``."""

    def __init__(self, kinds: Iterable[str] = ("js", "css", "html", "json")) -> None:
        self._kinds: dict[str, Callable[[bytes], bytes]] = {}
        for kind in kinds:
            if kind not in _MINIFIERS:
                raise ConfigError(f"{kind!r} cannot be minified; kinds are {', '.join(_MINIFIERS)}")
            if kind in _LIBRARIES and find_spec(_LIBRARIES[kind]) is None:
                raise MissingExtra(f"minification of {kind}", "minify")
            self._kinds[kind] = _MINIFIERS[kind]

    def variants(self, section: Section, status: int) -> bool:
        """False: nothing is left to do once it is stored."""
        return False

    def choose(self, accept_encoding: bytes | None, section: Section | None = None) -> str:
        """ "": no coding."""
        return ""

    def apply(self, coding: str, pairs: list[Pair], body: bytes) -> tuple[list[Pair], bytes] | None:
        """None: no coding."""
        return None

    def minify(self, pairs: list[Pair], body: bytes) -> tuple[list[Pair], bytes] | None:
        """The fields (ETag weak, digests gone) and a smaller body of the same meaning, or None to leave the original."""
        kind = self.kind(pairs)
        if kind is None or not 0 < len(body) <= MAXIMUM:
            return None
        try:
            made = self._kinds[kind](body)
        except (KeyboardInterrupt, SystemExit):
            raise
        except (
            BaseException
        ):  # whatever a minifier thinks of it (a panic of Rust code is no Exception): the original is right
            return None
        if not made or len(made) >= len(body):
            return None
        headers = Headers.of(Section(pairs))
        etag = headers.find(b"etag")
        weak = [] if etag is None else [(b"etag", etag if etag.startswith(b"W/") else b"W/" + etag)]
        headers.replace(_DIGESTS, weak)
        return headers.raw, made

    def kind(self, pairs: list[Pair]) -> str | None:
        """What may be done with a response of those fields: not when coded, partial, no-transform (RFC 9111 §5.2.2.6) or not UTF-8."""
        headers = Headers.of(Section(pairs))
        content_type = (headers.find(b"content-type") or b"").lower()
        media, _, parameters = content_type.partition(b";")
        kind = _TYPES.get(media.strip())
        if kind is None or kind not in self._kinds:
            return None
        if headers.find(b"content-encoding") or headers.find(b"content-range"):
            return None
        if b"no-transform" in (headers.find(b"cache-control") or b"").lower():
            return None
        if b"charset=" in parameters and b"utf-8" not in parameters:
            return None
        return kind


def _js(body: bytes) -> bytes:
    import rjsmin

    return bytes(rjsmin.jsmin(body.decode("utf-8"), keep_bang_comments=True).encode())


def _css(body: bytes) -> bytes:
    import rcssmin

    return bytes(rcssmin.cssmin(body.decode("utf-8"), keep_bang_comments=True).encode())


def _html(body: bytes) -> bytes:
    """Only what every browser parses the same: closing tags, the doctype and spaces between attributes stay."""
    import minify_html

    return minify_html.minify(
        body.decode("utf-8"), keep_closing_tags=True, keep_html_and_head_opening_tags=True, minify_css=False, minify_js=False,
        minify_doctype=False, allow_removing_spaces_between_attributes=False, allow_noncompliant_unquoted_attribute_values=False,
    ).encode()  # fmt: skip


def _json(body: bytes) -> bytes:
    """White space between tokens goes; numbers and strings stay to the byte."""
    import msgspec

    msgspec.json.decode(body, type=msgspec.Raw)
    return _JSON_SPACE.sub(lambda found: found[1] or b"", body)


_MINIFIERS: dict[str, Callable[[bytes], bytes]] = {"js": _js, "css": _css, "html": _html, "json": _json}
