"""What a signature of an HTTP message covers, as the exact bytes that are signed (RFC 9421, hmac-sha256).

Sans-IO: a request's parts come in, the signature base goes out. Component parameters (``;sf``, ``;key`` …) and derived components
beyond the six that requests have are refused, as an unknown part of what is signed must be.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import NamedTuple

from blocks.http.message import Request

MAX_INPUT = 4096  # bytes of Signature-Input
MAX_COMPONENTS = 32
DERIVED = ("@method", "@authority", "@scheme", "@path", "@query", "@request-target", "@target-uri")
_MEMBER = re.compile(
    r'\s*([a-z*][a-z0-9_.*-]*)=\(([^()]*)\)((?:;[a-z*][a-z0-9_.*-]*(?:=(?:-?\d{1,15}|"[ !#-\[\]-~]*"))?)*)\s*\Z'
)
_PARAMETER = re.compile(r';([a-z*][a-z0-9_.*-]*)(?:=(?:(-?\d{1,15})|"([ !#-\[\]-~]*)"))?')
_COMPONENT = re.compile(r'"(@?[!#$%&\'*+\-.^_`|~0-9a-z]+)"\Z')
_SIGNATURE = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*\Z")


class SignatureInput(NamedTuple):
    """One member of Signature-Input: its label, the covered components in order, its parameters, and the text that is signed too."""

    label: str
    components: tuple[str, ...]
    parameters: dict[str, str | int]
    text: str


def parse_input(value: bytes) -> SignatureInput:
    """The only member of a Signature-Input field. Raises ``ValueError``; more than one signature is refused rather than chosen from."""
    if len(value) > MAX_INPUT:
        raise ValueError("Signature-Input is too long")
    text = value.decode("latin-1")
    match = _MEMBER.match(text)
    if match is None:
        raise ValueError("Signature-Input is not one inner list with parameters")
    components = []
    for item in match.group(2).split():
        found = _COMPONENT.match(item)
        if found is None:
            raise ValueError(f"the component {item} is not understood")
        components.append(found.group(1))
    if len(components) != len(set(components)) or len(components) > MAX_COMPONENTS:
        raise ValueError("a component is covered twice, or there are too many")
    parameters: dict[str, str | int] = {}
    for name, number, string in _PARAMETER.findall(match.group(3)):
        if name in parameters:
            raise ValueError(f"the parameter {name} occurs twice")
        parameters[name] = int(number) if number else string
    return SignatureInput(match.group(1), tuple(components), parameters, f"({match.group(2)}){match.group(3)}")


def parse_signature(value: bytes, label: str) -> bytes:
    """The bytes of the only member of a Signature field, which must be ``label``'s. Raises ``ValueError``."""
    match = _SIGNATURE.match(value.decode("latin-1"))
    if match is None or match.group(1) != label:
        raise ValueError("Signature does not hold just the signature that Signature-Input describes")
    try:
        return b64decode(match.group(2), validate=True)
    except Base64Error:
        raise ValueError("the signature is not base64") from None


def signature_base(request: Request, components: tuple[str, ...], text: str) -> bytes:
    """The bytes that are signed (RFC 9421 §2.5). Raises ``ValueError`` for a component that the request does not have."""
    lines = [f'"{name}": {_value(request, name)}' for name in components]
    lines.append(f'"@signature-params": {text}')
    return "\n".join(lines).encode("latin-1")


def _value(request: Request, name: str) -> str:
    if not name.startswith("@"):
        values = request.headers.section.index.get(name.encode("latin-1"))
        if values is None:
            raise ValueError(f"the signature covers {name}, which the request does not have")
        return ", ".join(value.strip(b" \t").decode("latin-1") for value in values)
    path, _, query = request.target.partition("?")
    match name:
        case "@method":
            return request.method
        case "@authority":
            return authority(request)
        case "@scheme":
            return request.scheme
        case "@path":
            return path
        case "@query":
            return "?" + query
        case "@request-target":
            return request.target
        case "@target-uri":
            return f"{request.scheme}://{authority(request)}{request.target}"
    raise ValueError(f"the derived component {name} is not understood")


def authority(request: Request) -> str:
    """The authority in lower case without the scheme's default port (RFC 9421 §2.2.3)."""
    host = request.host.lower()
    default = ":443" if request.scheme == "https" else ":80"
    return host.removesuffix(default)
