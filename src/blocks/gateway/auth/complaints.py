"""All that is wrong with the tables of identity is found at once, each with its place: what builds the objects would stop at the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from blocks.core.config.complaint import At, Complaint, complaints_of
from blocks.core.config.decode import convert
from blocks.core.errors import ConfigError
from blocks.core.quantities import rate

from .apikeys import read_hash
from .certificates import read_name
from .consumers import ConsumerSettings, KeySettings, entries, epoch
from .passwords import read_password
from .signature import checked_component, checked_secret

_RATES = ("verifications", "verifications_total", "failures")
_HASHES: dict[str, tuple[str, Callable[[str], object]]] = {  # which of the two sides of an entry is looked at
    "keys": ("key", read_hash),
    "names": ("key", read_name),
    "users": ("value", read_password),
}


def authenticator_complaints(shape: type[msgspec.Struct], table: Mapping[str, Any]) -> list[Complaint]:
    """What is wrong with an ``[auth.NAME]`` table of that shape, but for what only its object knows."""
    found: list[Complaint] = []
    convert(shape, table, (), found)
    wrong = {one.at[0] for one in found if one.at}
    known = {field.encode_name for field in msgspec.structs.fields(shape)}
    for key, value in table.items():
        if key not in known or key in wrong or value is None:
            continue
        if key in _RATES:
            found += _said(lambda text: None if text == "unlimited" else rate(text), value, (key,))
        elif key in _HASHES and isinstance(value, dict):
            side, read = _HASHES[key]
            for name, other in value.items():
                # a key that stands there in clear is not repeated
                found += _said(read, name if side == "key" else other, (key,) if key == "keys" else (key, name))
        elif key == "covered":
            for place, component in enumerate(value):
                found += _said(checked_component, component, (key, place))
    return list(dict.fromkeys(found))


def consumer_complaints(settings: ConsumerSettings) -> list[Complaint]:
    """What is wrong with the values of a ``[consumers.NAME]`` table that has the right shape."""
    found: list[Complaint] = []
    for place, given in enumerate(settings.keys):
        entry = KeySettings(hash=given) if isinstance(given, str) else given
        inner = ("keys", place) if isinstance(given, str) else ("keys", place, "hash")
        found += _said(read_hash, entry.hash, inner)
        for key in ("since", "until"):
            found += _said(lambda moment: epoch(moment, 0.0), getattr(entry, key), ("keys", place, key))
    for place, hash in enumerate(entries(settings, "password")):
        at: At = ("password", place) if isinstance(settings.password, list) else ("password",)
        found += _said(read_password, hash, at)
    for keyid, secret in settings.secrets.items():
        found += _said(partial(checked_secret, keyid), secret.encode(), ("secrets", keyid))
    for place, name in enumerate(settings.certificates):
        found += _said(read_name, name, ("certificates", place))
    return found


def _said(read: Callable[[Any], object], value: Any, at: At) -> list[Complaint]:
    try:
        read(value)
    except ConfigError as error:
        return complaints_of(error, at)
    return []
