"""Who is asking, and may they: authenticators read credentials, and a route says which of them it believes.

``step`` makes a route's ``auth`` step; ``make`` the object of an ``[auth.NAME]`` table. In code, authenticators are given as they are:
``route("/api/{rest:path}", handler, auth=Jwt(KeySet.from_jwks(…)))``.
"""

from __future__ import annotations

from .apikeys import ApiKey, ApiKeys, hash_key, new_key
from .basic import Basic
from .certificates import Certificates
from .claims import Rules
from .credentials import InCookie, InHeader, InQuery, bearer
from .introspection import Introspection
from .jws import InvalidToken, UnknownKey, verify_compact
from .jwt import Jwt, Naming
from .keys import Key, KeySet
from .keysource import FixedKeys, RefreshedKeys
from .make import make
from .outcome import Authenticator, Refusal
from .passwords import hash_password
from .signature import Signatures, sign
from .step import ANONYMOUS, DENY, Authenticate, Deny, step

SHORTHAND = (str, list)

__all__ = [
    "ANONYMOUS",
    "DENY",
    "SHORTHAND",
    "ApiKey",
    "ApiKeys",
    "Authenticate",
    "Authenticator",
    "Basic",
    "Certificates",
    "Deny",
    "FixedKeys",
    "InCookie",
    "InHeader",
    "InQuery",
    "Introspection",
    "InvalidToken",
    "Jwt",
    "Key",
    "KeySet",
    "Naming",
    "RefreshedKeys",
    "Refusal",
    "Rules",
    "Signatures",
    "UnknownKey",
    "bearer",
    "hash_key",
    "hash_password",
    "make",
    "new_key",
    "sign",
    "step",
    "verify_compact",
]
