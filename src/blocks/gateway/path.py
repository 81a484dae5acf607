"""A path is made canonical once, before it is matched, and the service gets what was matched: two parsers never see two routes.

What could be read in two ways is refused with 400, or kept opaque where the gateway was told so; what is only written in two
ways is rewritten (RFC 3986 §6.2.2): escapes of unreserved characters are decoded, the others get capital digits, ``.`` and
``..`` are resolved, empty segments merge (nginx's merge_slashes).
"""

from __future__ import annotations

import re

from blocks.core.errors import ClientFault

MAX_SEGMENTS = 128  # deeper paths are refused: no template is that deep, and a match must stay cheap

_CLEAN = re.compile(r"(?:/(?![./])[A-Za-z0-9\-._~!$&'()*+,=:@]*+)*+/?")  # nothing that could mean two things
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_RAW = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,=:@/%;]")
_HIDDEN = re.compile(r";|%3B|%2F")  # what a service may cut a segment at, so that a dot segment comes to light
_OVERLONG = re.compile(r"%C0%(?:AE|AF)|%C1%9C")  # dot, slash and backslash to lax decoders of UTF-8
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])")


class BadPath(ClientFault):
    """A path or host that two parsers may read in two ways; the answer is 400."""

    reason = "bad-path"


def normalise(path: str, *, encoded_slash: bool = False, semicolon: bool = False) -> str:
    """The canonical form of an absolute path without its query. Raises ``BadPath``.

    ``encoded_slash`` keeps ``%2F`` as a part of its segment, ``semicolon`` keeps ``;`` in one; without them both are refused.
    """
    return canonical(path) or rewrite(path, encoded_slash=encoded_slash, semicolon=semicolon)


def canonical(path: str) -> str | None:
    """The path itself when it is canonical as it stands, which nearly all are; else None."""
    return path if _CLEAN.fullmatch(path) is not None and path and path.count("/") <= MAX_SEGMENTS else None


def rewrite(path: str, *, encoded_slash: bool = False, semicolon: bool = False) -> str:
    """As ``normalise``, for a path that is not canonical."""
    if not path.startswith("/"):
        raise BadPath("the path does not begin with a slash")
    found = _RAW.search(path)
    if found is not None:
        raise BadPath(f"the path holds {found.group()!r}, which must be percent-encoded (RFC 3986 §3.3)")
    if ";" in path and not semicolon:
        raise BadPath("the path holds ';', which some services cut off and others do not")
    decoded = _ESCAPE.sub(lambda match: _unescape(match, encoded_slash), path)
    if _OVERLONG.search(decoded):
        raise BadPath("the path holds a dot, slash or backslash in overlong UTF-8 (RFC 3629 §3)")
    return _resolve(decoded)


def _unescape(match: re.Match[str], encoded_slash: bool) -> str:
    digits = match.group(1)
    if digits is None:
        raise BadPath("the path holds a '%' that two hexadecimal digits do not follow")
    byte = int(digits, 16)
    if byte in _UNRESERVED:
        return chr(byte)
    if byte < 0x20 or byte == 0x7F:
        raise BadPath("the path holds an encoded control character")
    if byte == 0x5C or (byte == 0x2F and not encoded_slash):
        raise BadPath("the path holds an encoded slash or backslash, which some services take for a separator")
    if byte == 0x25 and re.match(r"[0-9A-Fa-f]{2}", match.string[match.end() :]):
        raise BadPath("the path is percent-encoded twice")
    return "%" + digits.upper()


def _resolve(path: str) -> str:
    """Without empty and dot segments (RFC 3986 §5.2.4); going above the root is refused."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    if len(segments) > MAX_SEGMENTS:
        raise BadPath(f"the path has more than {MAX_SEGMENTS} segments")
    for segment in segments:
        if segment not in (".", "..") and not {".", ".."}.isdisjoint(_HIDDEN.split(segment)):
            raise BadPath("the path holds a dot segment with parameters or an encoded slash")
        if segment == "..":
            if not kept:
                raise BadPath("the path goes above its root")
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + tail


def host_name(host: str) -> str:
    """The host of a Host field: lower case, without port and without the trailing dot of a rooted name. Raises ``BadPath``."""
    name = host.lower()
    if name.startswith("["):
        end = name.find("]")
        name, port = name[: end + 1], name[end + 1 :]
    else:
        name, colon, digits = name.partition(":")
        port = colon + digits
        name = name.removesuffix(".")
    if (port not in ("", ":") and not port[1:].isdecimal()) or port[:1] not in ("", ":") or not _HOST.fullmatch(name):
        raise BadPath(f"{host!r} is not a host")
    return name
