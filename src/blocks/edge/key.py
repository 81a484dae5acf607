"""The cache key: what of a request makes it another resource. The URL in the key is the URL that is forwarded, byte for byte.

So nothing that a client can put into a request reaches the origin outside the key through the URL: parameters that the rules drop
are dropped before forwarding, too, and "&" alone separates parameters ("parameter cloaking" needs a second opinion on that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from blocks.http.message import Section

_DEVICES = (
    ("bot", re.compile(rb"bot|crawl|spider|slurp|facebookexternalhit", re.I)),
    ("tablet", re.compile(rb"ipad|tablet|kindle|silk|android(?!.*mobile)", re.I)),
    ("mobile", re.compile(rb"mobi|iphone|ipod|android|windows phone", re.I)),
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What goes into the key beside the path.

    ``host`` and ``scheme`` may be left out for origins that ignore them. ``sort`` orders the query's parameters; ``drop`` takes
    out those whose name matches a pattern (``utm_*``); ``allow`` keeps only those that match. ``headers`` and ``cookies`` add the
    values of these; ``device`` adds the class (mobile, tablet, bot, desktop) of the User-Agent.
    """

    host: bool = True
    scheme: bool = True
    sort: bool = False
    drop: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    headers: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    device: bool = False

    @property
    def touches_query(self) -> bool:
        """Whether the forwarded query can differ from the one that came."""
        return bool(self.sort or self.drop or self.allow is not None)


def authority(scheme: str, host: str) -> str:
    """``scheme://host`` in lower case, without the scheme's own port."""
    scheme, host = scheme.lower(), host.lower()
    port = _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host.removesuffix(port) if port else host}"


def base_of(rules: KeyRules, scheme: str, host: str) -> str:
    """What the key of every target on that host begins with."""
    return authority(scheme if rules.scheme else "http", host if rules.host else "-")


def forwarded_target(rules: KeyRules, target: str) -> str:
    """The target as the rules leave it; the key is made of it and the origin gets it."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    kept = [part for part in query.split("&") if part and _stays(rules, part.partition("=")[0])]
    if rules.sort:
        kept.sort(
            key=lambda part: part.partition("=")[0]
        )  # stable: repeats of one name keep their order, which may matter
    return f"{path}?{'&'.join(kept)}" if kept else path


def _stays(rules: KeyRules, name: str) -> bool:
    if rules.allow is not None and not any(fnmatchcase(name, pattern) for pattern in rules.allow):
        return False
    return not any(fnmatchcase(name, pattern) for pattern in rules.drop)


def extras(rules: KeyRules, section: Section) -> str:
    """What headers, cookies and the device add to the key, each after a NUL; "" when the rules name none."""
    parts: list[str] = []
    for name in rules.headers:
        lines = section.index.get(name.lower().encode("latin-1"))
        parts.append(f"\0{name.lower()}=" + ("" if lines is None else b",".join(lines).decode("latin-1")))
    if rules.cookies:
        found = cookies_of(section)
        parts.extend(f"\0cookie {name}={found.get(name, '')}" for name in rules.cookies)
    if rules.device:
        parts.append("\0device=" + device_class(section))
    return "".join(parts)


def cookies_of(section: Section) -> dict[str, str]:
    """The cookies of a request by name; the first of a name counts (RFC 6265 §5.4 sends the most specific first)."""
    found: dict[str, str] = {}
    for line in section.index.get(b"cookie", ()):
        for part in line.decode("latin-1").split(";"):
            name, mark, value = part.strip().partition("=")
            if mark:
                found.setdefault(name, value)
    return found


def device_class(section: Section) -> str:
    """``mobile``, ``tablet``, ``bot`` or ``desktop``, guessed from User-Agent as CDNs do."""
    lines = section.index.get(b"user-agent")
    if lines:
        for name, pattern in _DEVICES:
            if pattern.search(lines[0][:512]):
                return name
    return "desktop"
