"""A complaint is one thing that is wrong with a configuration: where, what, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError

if TYPE_CHECKING:
    from .read import Source

At = tuple[str | int, ...]


class Complaint(NamedTuple):
    """``at`` are the keys that lead to the place (``("routes", 3, "limit")``); ``level`` is error or warning."""

    at: At
    message: str
    level: str = "error"


class Misread(Complaint):
    """Of a value that has the right type and cannot be read: the table around it has its shape all the same."""

    __slots__ = ()


class ConfigErrors(ConfigError):
    """Everything that is wrong at once; ``complaints`` have the places, in ``source`` when the file could be read."""

    def __init__(self, complaints: list[Complaint], source: Source | None = None) -> None:
        self.complaints = complaints
        self.source = source
        super().__init__("; ".join(f"{dotted(one.at)}: {one.message}" if one.at else one.message for one in complaints))


def dotted(at: At) -> str:
    """``routes[3].limit``."""
    text = ""
    for key in at:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def complaints_of(error: ConfigError, at: At) -> list[Complaint]:
    """An error raised below ``at``, as complaints; an error may say how much further down it is, by an attribute ``at``."""
    below: At = tuple(getattr(error, "at", ()))
    if isinstance(error, ConfigErrors):
        return [one._replace(at=(*at, *below, *one.at)) for one in error.complaints]
    return [Complaint((*at, *below), str(error))]


@contextmanager
def below(*keys: str | int) -> Iterator[None]:
    """What is found wrong inside is said of the place ``keys``, counted from where the settings begin."""
    try:
        yield
    except ConfigError as error:
        raise ConfigErrors(complaints_of(error, keys)) from error
