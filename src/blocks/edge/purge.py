"""Which keys a purge means, found in time that grows with how many they are, not with how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .store import Purge

_BURST = 64  # keys that a node holds before it sorts them by their next path segment: small nodes are cheaper flat


class _Node:
    """Keys below one path prefix: all of them while they are few, then by next segment. A lone key stands for its node."""

    __slots__ = ("below", "keys")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.below: dict[str, _Node | str] | None = None


def _segment(key: str, at: int) -> str | None:
    """The segment of the key's path from ``at``, with its slash; None when it is the last."""
    end = key.find("/", at)
    stop = key.find("?", at)
    if end < 0 or -1 < stop < end or key.find("\0", at, end) >= 0:
        return None
    return key[at : end + 1]


class PurgeIndex:
    """Keys by URL, by prefix, by host and by tag. ``add`` and ``discard`` cost about 1 µs."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Node] = {}  # "scheme://host/" to its keys
        self._tags: dict[str, set[str]] = {}
        self._families: dict[str, set[str]] = {}  # a URL's key to those of its variants

    def add(self, key: str, tags: Iterable[str] = ()) -> None:
        """Keep ``key`` findable."""
        start = key.find("/", key.find("://") + 3) + 1
        root = self._hosts.get(key[:start])
        if root is None:
            root = self._hosts[key[:start]] = _Node()
        _insert(root, key, start)
        for tag in tags:
            self._tags.setdefault(tag, set()).add(key)
        base, nul, _ = key.partition("\0")
        if nul:
            self._families.setdefault(base, set()).add(key)

    def discard(self, key: str, tags: Iterable[str] = ()) -> None:
        """Forget ``key``."""
        start = key.find("/", key.find("://") + 3) + 1
        root = self._hosts.get(key[:start])
        if root is not None and _delete(root, key, start):
            del self._hosts[key[:start]]
        for tag in tags:
            _drop(self._tags, tag, key)
        base, nul, _ = key.partition("\0")
        if nul:
            _drop(self._families, base, key)

    def find(self, purge: Purge) -> list[str]:
        """The keys that are meant."""
        if purge.kind == "tag":
            return list(self._tags.get(purge.value, ()))
        if purge.kind == "url":
            return [purge.value, *self._families.get(purge.value, ())]
        if purge.kind == "host":
            return [key for scheme in ("http", "https") for key in self._below(f"{scheme}://{purge.value}/")]
        return list(self._below(purge.value))

    def bases(self) -> list[str]:
        """``scheme://host`` of every host that has keys."""
        return [host[:-1] for host in self._hosts]

    def _below(self, prefix: str) -> Iterator[str]:
        authority = prefix.find("://") + 3
        start = prefix.find("/", authority) + 1 if authority > 2 else 0
        root = self._hosts.get(prefix[:start]) if start else None
        if root is None:
            if not start:  # the prefix ends within the authority
                for host, node in self._hosts.items():
                    if host.startswith(prefix):
                        yield from _all(node)
            return
        yield from _matching(root, prefix, start)


def _insert(node: _Node, key: str, at: int) -> None:
    while node.below is not None:
        segment = _segment(key, at)
        if segment is None:
            break
        at += len(segment)
        child = node.below.get(segment)
        if child is None:
            node.below[segment] = key
            return
        if isinstance(child, str):
            if child != key:
                pair = _Node()
                pair.keys = {child, key}
                node.below[segment] = pair
            return
        node = child
    node.keys.add(key)
    if node.below is None and len(node.keys) > _BURST:
        _burst(node, at)


def _burst(node: _Node, at: int) -> None:
    """Sort a flat node's keys by their next segment."""
    keys, node.keys, node.below = node.keys, set(), {}
    for key in keys:
        segment = _segment(key, at)
        if segment is None:
            node.keys.add(key)
            continue
        child = node.below.get(segment)
        if child is None:
            node.below[segment] = key
        elif isinstance(child, str):
            new = _Node()
            new.keys = {child, key}
            node.below[segment] = new
        else:
            child.keys.add(key)


def _delete(node: _Node, key: str, at: int) -> bool:
    """Take ``key`` out below ``node``; True when the node is empty now."""
    segment = _segment(key, at) if node.below is not None else None
    if segment is None or node.below is None:
        node.keys.discard(key)
    else:
        child = node.below.get(segment)
        if child == key or (isinstance(child, _Node) and _delete(child, key, at + len(segment))):
            del node.below[segment]
    return not node.keys and not node.below


def _matching(node: _Node, prefix: str, at: int) -> Iterator[str]:
    while node.below is not None:
        segment = _segment(prefix, at)
        if segment is None:
            for name, child in node.below.items():
                if name.startswith(prefix[at:]):
                    yield from [child] if isinstance(child, str) else _all(child)
            break
        child = node.below.get(segment, "")  # a lone key is checked against the whole prefix
        if isinstance(child, str):
            if child.startswith(prefix) and child:
                yield child
            return
        at += len(segment)
        node = child
    yield from [key for key in node.keys if key.startswith(prefix)]


def _all(node: _Node) -> Iterator[str]:
    yield from node.keys
    for child in (node.below or {}).values():
        if isinstance(child, str):
            yield child
        else:
            yield from _all(child)


def _drop(index: dict[str, set[str]], name: str, key: str) -> None:
    members = index.get(name)
    if members is not None:
        members.discard(key)
        if not members:
            del index[name]
