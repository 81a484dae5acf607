"""What an unsafe request makes invalid (RFC 9111 §4.4, RFC 9875 §3)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from blocks.http.message import Section

from .key import authority
from .tags import GROUP_INVALIDATION, group_tag, groups_of

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))  # RFC 9110 §9.2.1; an unknown method counts as unsafe


def invalidates(method: str, status: int) -> bool:
    """Whether a response with that status to that method changes what is stored: unsafe, and no error (RFC 9111 §4.4)."""
    return method not in SAFE_METHODS and 200 <= status < 400


def invalidated_urls(url: str, section: Section) -> list[str]:
    """The URLs to invalidate: the request's own, and those of Location and Content-Location on the same origin (RFC 9111 §4.4)."""
    found = [url]
    own = url.partition("/")[2].partition("/")[2].partition("/")[0]
    for name in (b"location", b"content-location"):
        for line in section.index.get(name, ())[:1]:
            target = same_origin(url, line)
            if target is not None and target not in found and own:
                found.append(target)
    return found


def same_origin(url: str, reference: bytes) -> str | None:
    """The URL that a reference from ``url`` means, without fragment, or None when it is malformed or on another origin."""
    try:
        joined = urljoin(url, reference.decode("latin-1"))
        parts = urlsplit(joined)
        here = urlsplit(url)
    except ValueError:
        return None
    if authority(parts.scheme, parts.netloc) != authority(here.scheme, here.netloc):
        return None
    path = parts.path or "/"
    return f"{authority(parts.scheme, parts.netloc)}{path}{'?' + parts.query if parts.query else ''}"


def invalidated_tags(base: str, section: Section) -> list[str]:
    """The tags of the groups that Cache-Group-Invalidation names, on the origin ``base`` (RFC 9875 §3)."""
    return [group_tag(base, group) for group in groups_of(section, GROUP_INVALIDATION)]
