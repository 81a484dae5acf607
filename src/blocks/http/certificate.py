"""The names and the end of a certificate, read from its DER (RFC 5280 §4.1): all that choosing by SNI and warning in time need.

The standard library decodes a certificate only for a peer that it has verified; this reads the two facts from our own files.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import NamedTuple

_OID, _UTC_TIME = 0x06, 0x17
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_ALT_NAME, _COMMON_NAME = b"\x55\x1d\x11", b"\x55\x04\x03"
_DNS, _ADDRESS = 0x82, 0x87
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Certificate(NamedTuple):
    """``names``: DNS names and addresses, lower case, the common name if there are none. ``ends``: seconds since 1970."""

    names: list[str]
    ends: float


def certificate_in(pem: str) -> Certificate:
    """The first certificate of a PEM text. Raises ``ValueError`` when there is none, or it is malformed."""
    _, begun, rest = pem.partition(_BEGIN)
    body, ended, _ = rest.partition(_END)
    if not begun or not ended:
        raise ValueError("no certificate in PEM")
    try:
        return _read(b64decode(body))
    except (IndexError, StopIteration) as error:
        raise ValueError("a certificate that is cut short") from error


def _read(der: bytes) -> Certificate:
    certificate = next(_items(der))[1]
    fields = [item for item in _items(next(_items(certificate))[1]) if item[0] != _VERSION]
    validity, subject = fields[3][1], fields[4][1]  # serial, algorithm, issuer, validity, subject, key, …
    names: list[str] = []
    for tag, value in fields[6:]:
        if tag == _EXTENSIONS:
            names = _alternative_names(next(_items(value))[1])
    return Certificate(names or _common_names(subject), _time(*list(_items(validity))[1]))


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of the values that follow one another in ``data``."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + size > len(data):
            raise ValueError("a certificate that is cut short")
        yield tag, data[at : at + size]
        at += size


def _alternative_names(extensions: bytes) -> list[str]:
    for _, extension in _items(extensions):
        parts = list(_items(extension))
        if parts[0] == (_OID, _ALT_NAME):
            names = list(_items(next(_items(parts[-1][1]))[1]))
            found = [value.decode("ascii", "replace").lower() for tag, value in names if tag == _DNS]
            return found + [str(ip_address(value)) for tag, value in names if tag == _ADDRESS]
    return []


def _common_names(subject: bytes) -> list[str]:
    found = []
    for _, relative in _items(subject):
        for _, pair in _items(relative):
            kind, value = list(_items(pair))
            if kind == (_OID, _COMMON_NAME):
                found.append(value[1].decode("utf-8", "replace").lower())
    return found


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280 §4.1.2.5.1
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
