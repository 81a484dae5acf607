"""Which messages of a frame their sender may publish: one that is refused says nothing against the others of its frame.

A client gathers what a tick publishes, so messages of a frame may come from parts of a program that know nothing of each other.
"""

from __future__ import annotations

from typing import Any

from .columns import said
from .errors import Aborted, BadRequest, BrokerError, TooLarge
from .frames import Publish
from .inboxes import is_inbox
from .security import Identity


def refusals(frame: Publish, identity: Identity) -> dict[int, BrokerError]:
    """Why messages of ``frame`` are refused, by place; of an atomic frame all of them if one is."""
    topics = {frame.topics} if type(frame.topics) is str else set(frame.topics)
    inboxes = sum(map(is_inbox, topics))
    if inboxes and inboxes != len(topics):
        mixed = BadRequest("a frame is for inboxes or for topics, not for both")
        return dict.fromkeys(range(len(frame.payloads)), mixed)
    # An inbox's name is the right to send to it.
    denied = set() if inboxes else {topic for topic in topics if not identity.may("publish", topic)}
    most = identity.bounds.message_bytes
    if not denied and (most is None or max(map(len, frame.payloads)) <= most):
        return {}
    refused: dict[int, BrokerError] = {}
    for place, payload in enumerate(frame.payloads):
        topic = frame.topics if type(frame.topics) is str else frame.topics[place]
        if topic in denied:
            refused[place] = identity.denial("publish", topic)
        elif most is not None and len(payload) > most:
            refused[place] = TooLarge(f"{identity.name} may send messages of at most {most} bytes")
    if frame.atomic:
        for place in range(len(frame.payloads)):
            refused.setdefault(place, Aborted("another message of the batch was refused"))
    return refused


def without(frame: Publish, refused: dict[int, BrokerError]) -> tuple[Publish, list[int]]:
    """What is left of ``frame``, and the places that it had."""
    kept = [place for place in range(len(frame.payloads)) if place not in refused]

    def pick(column: Any) -> Any:
        return [column[place] for place in kept] if type(column) is list else column

    columns = {name: column if name == "producer" else pick(column) for name, column in frame.columns.items()}
    return frame._replace(topics=pick(frame.topics), payloads=pick(frame.payloads), columns=columns), kept


def refusal(frame: Publish, error: BrokerError) -> list[Any]:
    """The entry of a ``Receipts`` frame that refuses all of ``frame``."""
    return join([frame.number, [], [], []], [], dict.fromkeys(range(len(frame.payloads)), error))


def join(entry: list[Any], kept: list[int], refused: dict[int, BrokerError]) -> list[Any]:
    """The entry for a whole frame, from that of its ``kept`` part and the ``refused`` rest."""
    number, offsets, duplicates, errors = entry
    whole = [-1] * (len(kept) + len(refused))
    for index, place in enumerate(kept):
        whole[place] = offsets + index if type(offsets) is int else offsets[index]
    answered = [[kept[index], code, message] for index, code, message in errors]
    answered += [[place, error.code, said(error)] for place, error in refused.items()]
    return [number, whole, [kept[index] for index in duplicates], sorted(answered)]
