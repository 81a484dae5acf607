"""Settings as an operator may see them: what is secret reads ``***``, everything else as it is.

Secret is what a key says is (token, password, secret, credential, private key, cookie …), a password or a token in a URL, and every
text that a file or the environment gave away for ``${…}`` and the caller names. A path to a secret is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

MASK = "***"
_SECRET = re.compile(
    r"token|secret|passw(or)?d|passphrase|credential|private_?key|api_?key|authorization|cookie_?value|^hash(es)?$|^jwks?$|"
    r"^keys$|signing_?key|hmac",
    re.IGNORECASE,
)
_PATH = re.compile(
    r"(_|^)(file|path|url|uri|name|header|cookie|field|seconds|ttl|timeout|required?|size|limit|endpoint)s?$",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)[^/@\s]+@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<name>[?&][^=&\s]*(?:token|secret|password|signature|key)[^=&\s]*=)[^&\s#]+", re.IGNORECASE)
_HEADER = re.compile(r"(?P<scheme>\b(?:Bearer|Basic)\s+)\S+", re.IGNORECASE)
_BY_NAME = "secrets"  # a table of them by their names, which are told
_LONG_ENOUGH = 4  # characters: what is filled in and shorter, a port or a digit, is no secret, and stands everywhere


def masked(value: Any, filled: Collection[str] = ()) -> Any:
    """``value`` (tables, lists, texts, numbers) with secrets as ``***``; ``filled`` are texts that are secret wherever they stand.

    >>> masked({"token": "abc", "token_file": "/run/t", "url": "redis://me:pw@host/0"})
    {'token': '***', 'token_file': '/run/t', 'url': 'redis://***@host/0'}
    """
    secrets = sorted({text for text in filled if len(text) >= _LONG_ENOUGH}, key=len, reverse=True)
    return _masked(value, secrets)


def is_secret(key: str) -> bool:
    """Whether a setting of that name holds a secret itself, not where it is or how long it lives."""
    return _SECRET.search(key) is not None and _PATH.search(key) is None


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _item(key, item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item, secrets) for item in value]
    if isinstance(value, str):
        return _text(value, secrets)
    return value if value is None or isinstance(value, bool | int | float) else _text(str(value), secrets)


def _item(key: Any, item: Any, secrets: list[str]) -> Any:
    if key == _BY_NAME and isinstance(item, Mapping):
        return {name: MASK if _hides(value) else value for name, value in item.items()}
    return MASK if isinstance(key, str) and is_secret(key) and _hides(item) else _masked(item, secrets)


def _hides(value: Any) -> bool:
    """Whether there is something to hide: a switch or an empty value is told as it is, and a table is looked into."""
    return not isinstance(value, Mapping | bool) and value not in (None, "", [], ())


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    text = _QUERY.sub(rf"\g<name>{MASK}", text)
    return _HEADER.sub(rf"\g<scheme>{MASK}", text)
