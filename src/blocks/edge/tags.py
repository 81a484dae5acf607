"""Tags for purging: Surrogate-Key, Cache-Tag and the groups of RFC 9875, read from a response."""

from __future__ import annotations

from blocks.http.message import Section

from .structured import Item, NotStructured, parse_list

MOST_TAGS = (
    256  # tags that one response can have; the field itself is bounded by the header limit (Fastly: 16 KiB of keys)
)
GROUPS = b"cache-groups"
GROUP_INVALIDATION = b"cache-group-invalidation"
MOST_GROUPS = 128  # RFC 9875 §2.1: at least 32 have to be supported


def tags_of(section: Section, authority: str) -> tuple[str, ...]:
    """The tags of a response: keys separated by space, tags by commas, and each group also bound to its ``authority`` (``scheme://host``)."""
    index = section.index
    found: dict[str, None] = {}
    for line in index.get(b"surrogate-key", ()):
        found.update(dict.fromkeys(line.decode("latin-1").split()))
    for line in index.get(b"cache-tag", ()):
        found.update(dict.fromkeys(tag for part in line.decode("latin-1").split(",") if (tag := part.strip())))
    for group in groups_of(section, GROUPS):
        found[group] = None
        found[group_tag(authority, group)] = None
    return tuple(found)[:MOST_TAGS]


def groups_of(section: Section, field: bytes) -> list[str]:
    """The group names in Cache-Groups or Cache-Group-Invalidation: Strings of a List; a malformed field names none (RFC 9875 §2.1)."""
    lines = section.index.get(field)
    if lines is None:
        return []
    try:
        members = parse_list(b", ".join(lines))
    except NotStructured:
        return []
    return [member.value for member in members if isinstance(member, Item) and type(member.value) is str][:MOST_GROUPS]


def group_tag(authority: str, group: str) -> str:
    """The tag that stands for a group of one origin: equal names on other origins are other groups (RFC 9875 §2)."""
    return f"{authority} {group}"
