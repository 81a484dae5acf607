"""A JSON Schema is compiled once, without a network, and judges a value in microseconds (jsonschema-rs, extra ``schema``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from blocks.core.errors import ConfigError, MissingExtra

MAX_ERRORS = 10  # told for one value; enough to mend it, too few to make an answer large


class Fault(NamedTuple):
    """One thing that is wrong: a JSON Pointer to it (RFC 6901), and what is wrong."""

    pointer: str
    detail: str

    def told(self) -> dict[str, str]:
        """As a member of a problem document (RFC 9457 §3, the ``errors`` of its example)."""
        return {"pointer": "#" + self.pointer, "detail": self.detail}


class Schema:
    """A compiled schema, draft 2020-12 unless ``$schema`` says otherwise. Raises ``ConfigError`` for one that is none.

    References lead only into the document itself: nothing is ever fetched. ``formats``: ``format`` is checked, not just noted.
    """

    __slots__ = ("_validator",)

    def __init__(self, document: Mapping[str, Any] | bool, *, formats: bool = True) -> None:
        try:
            import jsonschema_rs
        except ImportError:
            raise MissingExtra("validating against JSON Schema", "schema") from None
        plain: Any = document if isinstance(document, bool) else dict(document)
        named = isinstance(plain, dict) and "$schema" in plain
        try:
            make = jsonschema_rs.validator_for if named else jsonschema_rs.Draft202012Validator
            self._validator = make(plain, validate_formats=formats, retriever=_retrieve)
        except Exception as error:  # the library raises ValidationError, ReferencingError, ValueError
            raise ConfigError(f"not a JSON Schema: {str(error).splitlines()[0][:300]}") from None

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is valid; the quick question."""
        return self._validator.is_valid(value)

    def faults(self, value: Any, *, at: str = "") -> list[Fault]:
        """What is wrong with ``value``, ``MAX_ERRORS`` things at most; ``at`` is the pointer that leads to it."""
        return list(islice(self._faults(value, at), MAX_ERRORS))

    def _faults(self, value: Any, at: str) -> Iterator[Fault]:
        for error in self._validator.iter_errors(value):
            yield Fault(at + pointer(error.instance_path), str(error.message)[:300])


def pointer(path: list[str | int]) -> str:
    """A path as a JSON Pointer (RFC 6901 §3)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _retrieve(uri: str) -> Any:
    raise ValueError(f"{uri} is outside of the document; schemas are not fetched")
