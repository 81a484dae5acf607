"""The topics, groups, subscriptions and bindings that there are, and how they come and go."""

from __future__ import annotations

from .admin import Administration
from .checks import Binding, Checks
from .errors import BadRequest, Closed, Exclusive, QuotaExceeded
from .group import Group, Subscription
from .message import Limits, Member, SubscribeOptions, TopicOptions
from .queue import Queue
from .topic import Topic
from .topics import Names, Patterns, check_pattern, check_topic, is_pattern


class Catalog(Administration):
    """The part of the engine that knows every name. New topics are kept as ``topic_options`` say."""

    def __init__(self, topic_options: TopicOptions, limits: Limits) -> None:
        self.topic_options = topic_options
        self.limits = limits
        self.topic_named: dict[str, Topic] = {}
        self.names = Names()
        self.group_named: dict[str, Group] = {}
        self.patterns: Patterns[Group] = Patterns()
        self.checks = Checks()
        self._subscriptions: dict[int, Subscription] = {}
        self._ends: dict[str, int] = {}  # where deleted topics ended whose last messages are not in the log yet
        self.removals = 0  # how often messages were let go, for the cleaner to see whether there is work
        self._serial = 0

    # -- topics and groups -----------------------------------------------------------------------------------------

    def make_topic(self, name: str) -> Topic:
        """A new topic."""
        topic = Topic(name, self.topic_options)
        topic.first = topic.next = topic.committed = max(self._engine().log.end_of(name), self._ends.pop(name, 0))
        self.adopt_topic(topic)
        self._engine().record("topic", name, None, topic.first)
        return topic

    def adopt_topic(self, topic: Topic) -> None:
        """Put a topic in its place."""
        self.topic_named[topic.name] = topic
        self.names.add(topic.name)
        topic.plain = not self.checks.concern(topic)

    def know_ids(self, topic: Topic) -> None:
        """After a replay: count the topic's ids in the dedup window."""
        for id, (offset, when) in list((topic.ids or {}).items()):
            self._engine().intake.remember(topic, id, offset, when)

    def drop_topic(self, topic: Topic) -> None:
        """Forget a topic and its messages."""
        self.removals += 1
        self.topic_named.pop(topic.name, None)
        if topic.next > self._engine().log.end_of(topic.name):
            self._ends[topic.name] = topic.next
        self.names.discard(topic.name)
        self._engine().intake.scheduled -= len(topic.scheduled or ())
        topic.scheduled = None
        topic.committed = topic.first = topic.next
        for queue in topic.queues:
            for lease in set(queue.leased.values()):
                lease.subscription.release(lease, lease.left)
            queue.leased.clear()
            queue.ready.clear()
            queue.group.queues.pop(topic.name, None)
            queue.group.active.pop(queue, None)

    def drop_group(self, group: Group) -> None:
        """Forget a group and its places."""
        self.group_named.pop(group.name, None)
        for pattern in group.patterns:
            self.patterns.discard(pattern, group)
        for queue in group.queues.values():
            if queue in queue.topic.queues:
                queue.topic.queues.remove(queue)
        group.queues.clear()
        group.active.clear()

    def find_queues(self, topic: Topic) -> None:
        """Groups whose patterns match and that have no place in ``topic`` yet begin at its next message."""
        topic.epoch = self.patterns.epoch
        for group in self.patterns.match(topic.name):
            if topic.name not in group.queues:
                self.make_queue(group, topic, topic.next)

    def make_queue(self, group: Group, topic: Topic, cursor: int) -> Queue:
        """Give ``group`` a place in ``topic``."""
        queue = group.queues[topic.name] = Queue(group, topic, cursor)
        topic.queues.append(queue)
        if group.durable:
            self._engine().record("queue", group.name, topic.name, cursor)
        return queue

    def add_binding(self, binding: Binding) -> None:
        """Copy messages from now on."""
        self.checks.known[binding] = None
        self.checks.bindings.add(binding.source, binding)
        self.refresh_plain()

    def remove_binding(self, binding: Binding) -> None:
        """Stop copying."""
        self.checks.known.pop(binding, None)
        self.checks.bindings.discard(binding.source, binding)
        self.refresh_plain()

    def refresh_plain(self) -> None:
        """Hooks changed: find out again which topics they concern."""
        for topic in self.topic_named.values():
            topic.plain = not self.checks.concern(topic)

    # -- subscribing -----------------------------------------------------------------------------------------------

    def subscribe(self, options: SubscribeOptions, member: Member) -> Subscription:
        """Join a group (or read alone); ``member.ready`` is called when there is something to take.

        Raises ``BadTopic``, ``BadRequest``, ``Exclusive``, ``QuotaExceeded``, ``Closed``.
        """
        failure = self._engine().failure
        if isinstance(failure, Closed):
            raise failure
        check_pattern(options.pattern)
        if len(self._subscriptions) >= self.limits.members:
            raise QuotaExceeded(f"there are {self.limits.members} subscriptions, which is the limit")
        if options.prefetch < 1 or options.prefetch_bytes < 1 or options.lease <= 0 or options.max_deliveries < 1:
            raise BadRequest("prefetch, prefetch_bytes, lease and max_deliveries are positive numbers")
        group = self._join(options)
        if group.members and (options.exclusive or any(m.options.exclusive for m in group.members)):
            raise Exclusive(f"group {group.name} has a member already")
        self._serial += 1
        subscription = Subscription(self._serial, self._engine(), group, options, member)
        self._subscriptions[subscription.id] = subscription
        group.members.append(subscription)
        for queue in group.queues.values():
            if queue.waiting:
                group.active[queue] = None
        group.waiting[subscription] = None
        group.call(1)
        return subscription

    def _join(self, options: SubscribeOptions) -> Group:
        name = options.group
        if name is None or options.mode == "browse":
            group = Group("", durable=False)
            self._place(group, options)
            return group
        check_topic(name)
        known = self.group_named.get(name)
        if known is None:
            if len(self.group_named) >= self.limits.groups:
                raise QuotaExceeded(f"there are {self.limits.groups} groups, which is the limit")
            known = self.group_named[name] = Group(name, durable=True)
        dead_letter = check_topic(options.dead_letter or f"$dead.{name}")
        changed = (known.max_deliveries, known.dead_letter) != (options.max_deliveries, dead_letter)
        known.max_deliveries, known.dead_letter = options.max_deliveries, dead_letter
        fresh = options.pattern not in known.patterns
        if fresh or changed:
            start = known.patterns.get(options.pattern, options.start)
            self._engine().record("group", name, options.pattern, start, known.max_deliveries, known.dead_letter)
        if fresh:
            self._place(known, options)
        return known

    def _place(self, group: Group, options: SubscribeOptions) -> None:
        """Where the group begins in the topics that there are; those that come later begin at their first message."""
        pattern, start = options.pattern, options.start
        if isinstance(start, str) and start not in ("earliest", "latest", "last"):
            raise BadRequest(f"start is earliest, latest, last, an offset or a time, not {start!r}")
        group.patterns[pattern] = start
        group.max_deliveries = options.max_deliveries
        self.patterns.add(pattern, group)
        if start == "latest" and is_pattern(pattern) and len(self.topic_named) > 1000:
            return  # places are made when something is published: the same, without a place in each of many idle topics
        for name in self.names.select(pattern) if is_pattern(pattern) else [pattern]:
            topic = self.topic_named.get(name)
            if topic is not None and name not in group.queues:
                place = (options.positions or {}).get(name)
                self.make_queue(group, topic, self._start(topic, start if place is None else place))

    def _start(self, topic: Topic, start: str | int | float) -> int:
        if start == "earliest":
            return topic.first
        if start == "latest":
            return topic.next
        if start == "last":
            return max(topic.first, topic.committed - 1)
        if isinstance(start, int):
            return max(topic.first, start)
        return self._engine().log.offset_at(topic.name, float(start)) or (
            topic.next if topic.touched < float(start) else topic.first
        )

    def left(self, subscription: Subscription) -> None:
        """A subscription was closed; a group that is not durable goes with its last member."""
        self._subscriptions.pop(subscription.id, None)
        group = subscription.group
        if group.members:
            group.call(len(group.waiting))
        elif not group.durable:
            self.drop_group(group)

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that are open."""
        return list(self._subscriptions.values())
