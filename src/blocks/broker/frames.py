"""The frames of the broker's protocol: what a client and a server say to each other.

``number`` is chosen by the asker and comes back in the answer; a subscription keeps the number of its ``Subscribe``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Column: TypeAlias = Any  # one value for all messages of a frame or run, or a list of one each
Columns: TypeAlias = dict[str, Column]


class Hello(NamedTuple):
    """The client's first frame: the version it speaks, who it is, and what it asks for."""

    version: int
    options: dict[str, Any]


class Welcome(NamedTuple):
    """The server's answer to ``Hello``: the version that holds, and its limits."""

    version: int
    options: dict[str, Any]


class Publish(NamedTuple):
    """Messages to be stored, all or none if ``atomic``; answered by a ``Receipts`` entry of the same ``number``."""

    number: int
    topics: str | list[str]
    payloads: list[bytes]
    columns: Columns
    atomic: bool


class Receipts(NamedTuple):
    """What became of the publishes of one commit; ``durability`` is the mode that the acknowledged ones have.

    An entry is ``[number, offsets, duplicates, errors]``: ``offsets`` is the first of consecutive ones, or a list;
    ``duplicates`` the places of messages that were there already, ``errors`` a list of ``[place, code, message]``.
    """

    durability: str
    entries: list[list[Any]]


class Subscribe(NamedTuple):
    """Asks for the messages of ``pattern``; answered by ``Subscribed`` or ``Refused`` of the same ``number``."""

    number: int
    pattern: str
    options: dict[str, Any]


class Subscribed(NamedTuple):
    """The subscription ``number`` is there; every message that it is due arrives from here on."""

    number: int
    options: dict[str, Any]


class Deliver(NamedTuple):
    """Messages for the subscription ``number``: runs of one topic and one lease each.

    A run is ``[topic, token, offsets, payloads, columns]``; ``offsets`` is the first of consecutive ones, or a list.
    """

    number: int
    runs: list[list[Any]]


class Settle(NamedTuple):
    """Says what became of delivered messages: ``verb`` for every ``[topic, token, [first, last, first, last, …]]``.

    A declined message was never looked at: its attempt does not count.
    ``argument`` is nack's delay, reject's reason, extend's seconds. ``answer`` not 0 asks for a ``Settled``.
    """

    number: int
    verb: int
    runs: list[list[Any]]
    argument: Any
    answer: int


class Credit(NamedTuple):
    """The client has consumed so much of a subscription that leaves no leases, and can take as much again."""

    number: int
    messages: int
    size: int


class Settled(NamedTuple):
    """The ``Settle`` that asked for ``answer`` is durable, except for ``stale`` messages whose lease was lost before."""

    answer: int
    stale: int


class Unsubscribe(NamedTuple):
    """Ends the subscription ``number``; what is not settled goes to others. Answered by ``Ended``."""

    number: int


class Ended(NamedTuple):
    """The subscription ``number`` is over; an empty ``code`` says that it was asked for."""

    number: int
    code: str
    message: str


class Ask(NamedTuple):
    """A question or an order to the broker itself; answered by ``Answer`` or ``Refused`` of the same ``number``."""

    number: int
    verb: str
    arguments: dict[str, Any]


class Answer(NamedTuple):
    """The answer to the ``Ask`` of ``number``."""

    number: int
    value: Any


class Refused(NamedTuple):
    """The frame of ``number`` was understood and refused: a short constant and a sentence."""

    number: int
    code: str
    message: str


class Ping(NamedTuple):
    """Asks for a ``Pong`` with the same ``token``."""

    token: int


class Pong(NamedTuple):
    """Answers a ``Ping``."""

    token: int


class Closing(NamedTuple):
    """The sender takes nothing new and closes when what is under way is done: a short constant and a sentence."""

    code: str
    message: str


Frame: TypeAlias = (
    Hello
    | Welcome
    | Publish
    | Receipts
    | Subscribe
    | Subscribed
    | Deliver
    | Settle
    | Credit
    | Settled
    | Unsubscribe
    | Ended
    | Ask
    | Answer
    | Refused
    | Ping
    | Pong
    | Closing
)

ACK, NACK, REJECT, EXTEND, DECLINE = range(5)  # the verbs of Settle
