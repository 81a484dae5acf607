"""How a topic stands right now, for tests and for those who look: reads the engine's state, and keeps none."""

from __future__ import annotations

from collections.abc import Callable

from .engine import Engine
from .queue import Queue
from .topic import Topic


class Standing:
    """One topic of a broker: ``broker.topic("orders").lag("billing")``. A topic or group that is not there yet has 0 of everything."""

    __slots__ = ("_engine", "name")

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    @property
    def messages(self) -> int:
        """Messages that are kept and can be read."""
        return self._of_topic(lambda topic: topic.committed - topic.first)

    @property
    def next(self) -> int:
        """The offset that the next message gets: how many there ever were, in a topic without atomic gaps."""
        return self._of_topic(lambda topic: topic.next)

    @property
    def size(self) -> int:
        """Bytes of payload that are kept."""
        return self._of_topic(lambda topic: topic.size)

    def lag(self, group: str) -> int:
        """Messages that the group has not done: those that wait and those that its members hold."""
        return self._of_queue(group, lambda queue: queue.backlog + len(queue.leased))

    def waiting(self, group: str) -> int:
        """Messages that no member of the group holds."""
        return self._of_queue(group, lambda queue: queue.backlog)

    def in_flight(self, group: str) -> int:
        """Messages that members of the group hold, leased and not settled."""
        return self._of_queue(group, lambda queue: len(queue.leased))

    def dead(self, group: str) -> int:
        """Dead letters of the group, from all its topics."""
        found = self._engine.group_named.get(group)
        if found is None:
            return 0
        return Standing(self._engine, found.dead_letter).messages

    def _of_topic(self, read: Callable[[Topic], int]) -> int:
        topic = self._engine.topic_named.get(self.name)
        return 0 if topic is None else read(topic)

    def _of_queue(self, group: str, read: Callable[[Queue], int]) -> int:
        found = self._engine.group_named.get(group)
        queue = None if found is None else found.queues.get(self.name)
        return 0 if queue is None else read(queue)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.messages} messages>"
