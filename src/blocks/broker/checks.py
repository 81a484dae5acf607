"""What is done to a message between its publisher and the log: transformation, validation, and copies to bound topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from blocks.core.errors import MissingExtra

from .errors import BadRequest, BrokerError, Invalid
from .topic import Topic
from .topics import Patterns

Transform = Callable[[bytes, Mapping[str, str]], "tuple[bytes, Mapping[str, str]]"]
Check = Callable[[bytes, Mapping[str, str]], None]  # raises ValueError or Invalid to refuse
MAX_HOPS = 8  # of bindings that lead to topics with bindings


class Binding(NamedTuple):
    """Messages of topics that match ``source`` are copied to ``target`` when their headers match.

    ``match`` "all" or "any" of ``headers``, as AMQP's headers exchange has it; no headers: every message.
    """

    source: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    match: Literal["all", "any"] = "all"

    def takes(self, headers: Mapping[str, str] | None) -> bool:
        """Whether a message with these headers is copied."""
        if not self.headers:
            return True
        have = headers or {}
        hits = (have.get(name) == value for name, value in self.headers)
        return all(hits) if self.match == "all" else any(hits)


class Routed(NamedTuple):
    """Where a message goes, and as what."""

    topic: Topic
    payload: bytes
    headers: Mapping[str, str] | None
    targets: tuple[Topic, ...]


class Checks:
    """The hooks of a broker: by topic pattern, in the order in which they were added."""

    def __init__(self) -> None:
        self.bindings: Patterns[Binding] = Patterns()
        self.transforms: Patterns[Transform] = Patterns()
        self.checks: Patterns[Check] = Patterns()
        self.known: dict[Binding, None] = {}
        self._schemas: dict[str, Any] = {}

    def concern(self, topic: Topic) -> bool:
        """Whether messages to ``topic`` must be looked at one by one."""
        name = topic.name
        hooks = (self.bindings, self.transforms, self.checks)
        return bool(
            topic.options.schema
            or topic.options.max_message_bytes
            or any(len(patterns) and patterns.match(name) for patterns in hooks)
        )

    def look(
        self, topic: Topic, payload: bytes, headers: Mapping[str, str] | None, find: Callable[[str], Topic]
    ) -> Routed:
        """Transform, validate and route one message; raises ``Invalid``."""
        try:
            for transform in self.transforms.match(topic.name):
                payload, headers = transform(payload, headers or {})
            if not isinstance(payload, bytes) or not all(
                isinstance(v, str) for pair in (headers or {}).items() for v in pair
            ):
                raise Invalid(f"a transformation of {topic.name} gives bytes, and headers of text")
            self._validate(topic, payload, headers or {})
        except Exception as error:  # hooks are users' code: whatever they raise refuses this message, and no other
            if topic.options.on_invalid == "dead-letter":
                note = {**(headers or {}), "dead-letter-reason": str(error), "dead-letter-topic": topic.name}
                return Routed(find(f"$dead.{topic.name}"), payload, note, ())
            if isinstance(error, BrokerError):
                raise
            raise Invalid(str(error) or repr(error)) from error
        return Routed(topic, payload, headers, self._targets(topic, headers, find))

    def _validate(self, topic: Topic, payload: bytes, headers: Mapping[str, str]) -> None:
        if topic.options.schema is not None:
            validator = self._schemas.get(topic.options.schema) or self.compile(topic.options.schema)
            problem = _problem(validator, payload)
            if problem is not None:
                raise Invalid(f"{topic.name}: {problem}")
        for check in self.checks.match(topic.name):
            check(payload, headers)

    def compile(self, schema: str) -> Any:
        """The validator of a JSON Schema's text; raises ``BadRequest``, or ``MissingExtra`` without ``blocks[schema]``."""
        try:
            import jsonschema_rs
        except ImportError as error:
            raise MissingExtra("validation by JSON Schema", "schema") from error
        try:
            validator = self._schemas[schema] = jsonschema_rs.validator_for(schema)
        except ValueError as error:
            raise BadRequest(f"this is not a JSON Schema: {error}") from error
        return validator

    def _targets(
        self, topic: Topic, headers: Mapping[str, str] | None, find: Callable[[str], Topic]
    ) -> tuple[Topic, ...]:
        """Every topic that bindings lead to, each once."""
        found: dict[str, Topic] = {}
        level = [topic.name]
        for _ in range(MAX_HOPS):
            below = []
            for name in level:
                for binding in self.bindings.match(name):
                    if binding.target != topic.name and binding.target not in found and binding.takes(headers):
                        found[binding.target] = find(binding.target)
                        below.append(binding.target)
            if not below:
                break
            level = below
        return tuple(found.values())


def _problem(validator: Any, payload: bytes) -> str | None:
    import json

    try:
        document = json.loads(payload)
    except ValueError as error:
        return f"the payload is not JSON: {error}"
    found = next(iter(validator.iter_errors(document)), None)
    return None if found is None else str(found.message)
