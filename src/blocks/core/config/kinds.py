"""Types of settings that are quantities: what they hold is read where a table is decoded, and refused with its place."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta

from ..quantities import rate, seconds, size

Duration = Annotated[float | str, Meta(extra={"quantity": "duration"})]
Size = Annotated[int | str, Meta(extra={"quantity": "size"})]
RateText = Annotated[str, Meta(extra={"quantity": "rate"})]

_READERS: dict[str, Callable[[Any], object]] = {"duration": seconds, "size": size, "rate": rate}


def reader_of(kind: Any) -> Callable[[Any], object] | None:
    """What reads a value of that type, which raises ``ConfigError``; None when the type is no quantity. Looks into unions."""
    if typing.get_origin(kind) is Annotated:
        for note in typing.get_args(kind)[1:]:
            word = (note.extra or {}).get("quantity") if isinstance(note, Meta) else None
            if word is not None:
                return _READERS[word]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(filter(None, map(reader_of, typing.get_args(kind))), None)
    return None
