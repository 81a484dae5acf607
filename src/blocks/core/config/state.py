"""Which configuration is in force, since when, and what was wrong with a later one that is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Configuration(NamedTuple):
    """What an operator is told.

    ``digest`` names this very content; ``loaded`` is seconds since 1970; ``last_error`` is "" after a good reload; ``tables`` are the
    settings themselves, and ``secrets`` texts in them that must not be shown.
    """

    digest: str
    loaded: float
    last_error: str
    tables: Mapping[str, Any]
    secrets: Collection[str] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """Without the settings."""
        return {"digest": self.digest, "loaded": round(self.loaded, 3), "last_error": self.last_error}


def digest_of(settings: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that differ when the settings do; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
