"""Filters before an edge: who may link to what is in it (hotlinks), and who may ask from where (countries)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from blocks.core.errors import ConfigError
from blocks.http.handler import Handler
from blocks.http.message import Request, Response


class HotlinkGuard:
    """Refuses (403) requests for ``paths`` whose Referer is on another host than ``allow`` (patterns such as ``*.example.com``).

    Requests without a Referer pass unless ``empty`` is False (nginx: valid_referers none): browsers and mail programs leave it out.
    """

    direct = True

    def __init__(self, allow: Iterable[str], *, paths: Iterable[str] = ("*",), empty: bool = True) -> None:
        self._allow = tuple(host.lower() for host in allow)
        self._paths = tuple(paths)
        self._empty = empty

    async def __call__(self, request: Request, next: Handler) -> Response:
        """Refuse, or go on."""
        if any(fnmatchcase(request.path, path) for path in self._paths) and not self._welcome(request):
            return Response(
                403, [("content-type", "text/plain"), ("cache-control", "no-store")], b"403 Forbidden: hotlink\n"
            )
        return await next(request)

    def _welcome(self, request: Request) -> bool:
        referer = request.headers.find(b"referer")
        if not referer:
            return self._empty
        try:
            host = (urlsplit(referer.decode("latin-1")).hostname or "").lower()
        except ValueError:
            return False
        own = request.host.partition(":")[0].lower()
        return bool(host) and (host == own or any(fnmatchcase(host, pattern) for pattern in self._allow))


class GeoGuard:
    """Refuses (451, RFC 7725) clients of countries that are not in ``allow``, or are in ``deny``.

    ``country`` tells the ISO 3166 code of an address, or "" where it is not known (a MaxMind reader's lookup, say); unknown ones pass
    ``deny`` and do not pass ``allow``.
    """

    direct = True

    def __init__(self, country: Callable[[str], str], *, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._country = country
        self._allow = frozenset(code.upper() for code in allow)
        self._deny = frozenset(code.upper() for code in deny)
        if bool(self._allow) == bool(self._deny):
            raise ConfigError("give either allow= or deny=, as ISO 3166 codes like ['DE', 'FR']")

    async def __call__(self, request: Request, next: Handler) -> Response:
        """Refuse, or go on."""
        code = self._country(request.peer.client[0]).upper()
        if code in self._deny or (self._allow and code not in self._allow):
            return Response(
                451,
                [("content-type", "text/plain"), ("cache-control", "no-store")],
                b"451 Unavailable For Legal Reasons\n",
            )
        return await next(request)
