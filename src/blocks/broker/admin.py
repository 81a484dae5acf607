"""Listing what there is and changing how it is kept: the part of the engine that operators use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, cast

from .checks import Binding
from .errors import BadRequest, NotFound
from .message import TopicOptions
from .topics import check_pattern, check_topic, matches

if TYPE_CHECKING:
    from .engine import Engine
    from .group import Group
    from .topic import Topic


class Administration:
    """Methods of the engine; all answers are plain dictionaries, fit for JSON."""

    def _engine(self) -> Engine:
        return cast("Engine", self)

    # -- listing ---------------------------------------------------------------------------------------------------

    def topics(self, pattern: str = ">") -> list[dict[str, Any]]:
        """Each topic with its offsets, bytes, groups and options; the broker's own only if the pattern spells ``$…``."""
        return [self.describe_topic(topic) for topic in self.topics_named(pattern)]

    def topics_named(self, pattern: str = ">") -> list[Topic]:
        """The topics that ``pattern`` matches."""
        known = list(self._engine().topic_named.values())
        return known if pattern == ">" else [topic for topic in known if matches(pattern, topic.name)]

    def describe_topic(self, topic: Topic) -> dict[str, Any]:
        """One row of ``topics``."""
        return {
            "topic": topic.name,
            "first": topic.first,
            "next": topic.committed,
            "messages": topic.committed - topic.first,
            "bytes": topic.size,
            "scheduled": len(topic.scheduled or ()),
            "groups": sorted(q.group.name for q in topic.queues if q.group.durable),
            "options": asdict(topic.options),
        }

    def groups(self) -> list[dict[str, Any]]:
        """Each durable group with its patterns, members and what waits for it."""
        return [self.describe_group(group) for group in self._engine().group_named.values()]

    def describe_group(self, group: Group) -> dict[str, Any]:
        """One row of ``groups``."""
        return {
            "group": group.name,
            "patterns": dict(group.patterns),
            "members": len(group.members),
            "waiting": sum(queue.backlog for queue in group.queues.values()),
            "in_flight": sum(len(queue.leased) for queue in group.queues.values()),
            "max_deliveries": group.max_deliveries,
            "dead_letter": group.dead_letter,
        }

    def lag(self, group: str | None = None) -> list[dict[str, Any]]:
        """For each group (or one) and topic: its cursor, the topic's end, and how many messages are not done."""
        engine = self._engine()
        if group is not None and group not in engine.group_named:
            raise NotFound(f"there is no group {group!r}")
        chosen = [engine.group_named[group]] if group is not None else list(engine.group_named.values())
        return [
            {
                "group": one.name,
                "topic": name,
                "cursor": queue.cursor,
                "end": queue.topic.committed,
                "waiting": queue.backlog,
                "in_flight": len(queue.leased),
                "lag": queue.backlog + len(queue.leased),
            }
            for one in chosen
            for name, queue in one.queues.items()
        ]

    def bindings(self) -> list[dict[str, Any]]:
        """Each binding as it was made."""
        return [
            {"source": b.source, "target": b.target, "headers": dict(b.headers), "match": b.match}
            for b in self._engine().checks.known
        ]

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and sizes now."""
        engine = self._engine()
        queues = [queue for group in engine.group_named.values() for queue in group.queues.values()]
        return {
            "published": engine.intake.published,
            "duplicates": engine.intake.duplicates,
            "refused": engine.intake.refused,
            "delivered": engine.delivered,
            "acked": engine.acked,
            "dead_letters": engine.deadletters.buried,
            "scheduled": engine.intake.scheduled,
            "topics": len(engine.topic_named),
            "groups": len(engine.group_named),
            "subscriptions": len(engine.subscriptions),
            "in_flight": sum(len(queue.leased) for queue in queues),
            "log_bytes": engine.log.size,
            "segments": len(engine.log.segments),
            "waiting_bytes": engine.waiting_bytes,
            "damage": len(engine.damage),
            "durability": engine.durability,
            "status": engine.status.name.lower(),
        }

    # -- changing --------------------------------------------------------------------------------------------------

    def configure(self, name: str, options: TopicOptions) -> None:
        """Keep topic ``name`` so from now on; it is made if there is none. Raises ``BadRequest``."""
        engine = self._engine()
        _check(options)
        if options.schema is not None:
            engine.checks.compile(options.schema)
        topic = engine.intake.topic(name)
        if topic.options != options:
            topic.options = options
            topic.plain = not engine.checks.concern(topic)
            engine.record("topic", name, asdict(options), topic.first)

    def delete_topic(self, name: str) -> None:
        """Remove a topic with its messages and every group's place in it. Raises ``NotFound``.

        A topic that is made with the name again goes on with the next offset, so that no offset ever means two messages.
        """
        engine = self._engine()
        topic = engine.intake.require(name)
        engine.record("delete-topic", name, after=True)
        engine.drop_topic(topic)

    def delete_group(self, name: str) -> None:
        """Remove a group and its places; its members are told. Raises ``NotFound``."""
        engine = self._engine()
        group = engine.group_named.get(name)
        if group is None:
            raise NotFound(f"there is no group {name!r}")
        for member in list(group.members):
            member.end(NotFound(f"group {name} was deleted"))
        engine.record("delete-group", name, after=True)
        engine.drop_group(group)

    def bind(
        self,
        source: str,
        target: str,
        headers: dict[str, str] | None = None,
        match: Literal["all", "any"] = "all",
    ) -> None:
        """Copy messages of topics that match ``source`` to ``target``, if their headers match. Survives restarts."""
        check_pattern(source)
        check_topic(target)
        for text in (part for pair in (headers or {}).items() for part in pair):
            if not isinstance(text, str) or len(text.encode("utf-8", "replace")) > 4096:
                raise BadRequest("the headers of a binding are texts of at most 4096 bytes")
        if match not in ("all", "any"):
            raise BadRequest(f"match is all or any, not {match!r}")
        engine = self._engine()
        binding = Binding(source, target, tuple(sorted((headers or {}).items())), match)
        if binding not in engine.checks.known:
            engine.add_binding(binding)
            engine.record("bind", *binding)

    def unbind(
        self,
        source: str,
        target: str,
        headers: dict[str, str] | None = None,
        match: Literal["all", "any"] = "all",
    ) -> None:
        """Undo ``bind``. Raises ``NotFound``."""
        engine = self._engine()
        binding = Binding(source, target, tuple(sorted((headers or {}).items())), match)
        if binding not in engine.checks.known:
            raise NotFound(f"there is no binding from {source!r} to {target!r} with these headers")
        engine.remove_binding(binding)
        engine.record("unbind", *binding)

    def redrive(self, group: str, limit: int | None = None, done: Callable[[int], None] = lambda count: None) -> None:
        """Give up to ``limit`` of the group's dead letters back to it; ``done(count)`` when that is durable."""
        self._engine().deadletters.redrive(group, limit, done)

    def trim(self, topic: Topic, first: int, size: int) -> None:
        """Messages before ``first``, of ``size`` bytes of payload together, are not kept any longer."""
        self._engine().removals += 1
        topic.first = max(topic.first, min(first, topic.committed))
        topic.size = max(0, topic.size - size)
        self._engine().record("trim", topic.name, topic.first, topic.size)


def _check(options: TopicOptions) -> None:
    """Refuse what could not be kept to; what a client says has any type."""
    for name in ("retain_seconds", "retain_bytes", "retain_messages", "max_message_bytes", "dedup_seconds"):
        value = getattr(options, name)
        if value is None and name != "dedup_seconds":
            continue
        if type(value) not in (int, float) or not (0 <= value < 2**63) or (value == 0 and name != "dedup_seconds"):
            raise BadRequest(
                f"{name} of a topic cannot be {value!r:.80}: it is a positive number, or None for no limit"
            )
    if type(options.compact) is not bool or type(options.keep_last) is not bool:
        raise BadRequest("compact and keep_last of a topic are true or false")
    if options.on_invalid not in ("refuse", "dead-letter"):
        raise BadRequest(f"on_invalid of a topic is refuse or dead-letter, not {options.on_invalid!r:.80}")
    if options.schema is not None and type(options.schema) is not str:
        raise BadRequest("schema of a topic is a JSON Schema")
