"""What the broker refuses, and why: each error has a ``code`` that is the same on the wire, in logs and in metrics."""

from __future__ import annotations

from blocks.core.errors import Again, Failure, Fault


class BrokerError(Failure):
    """The broker did not do what was asked: ``code`` is a stable constant, ``fault`` says who must act."""

    code = "broker"

    def __init__(self, message: str = "", *, again: Again = Again.NEVER) -> None:
        super().__init__(message or self.code, reason=self.code, again=again)


class BadTopic(BrokerError):
    """The topic name or pattern is not well formed, or not of the kind that is needed here."""

    code, fault, status = "bad-topic", Fault.CLIENT, 400


class BadRequest(BrokerError):
    """An argument is out of its range or contradicts another."""

    code, fault, status = "bad-request", Fault.CLIENT, 400


class TooLarge(BrokerError):
    """The message, its headers or the frame is over the limit that the message names."""

    code, fault, status = "too-large", Fault.CLIENT, 413


class QuotaExceeded(BrokerError):
    """There are as many topics, groups, members or scheduled messages as the limits allow."""

    code, fault, status = "quota", Fault.CLIENT, 429


class Invalid(BrokerError):
    """The topic's validation refused the message."""

    code, fault, status = "invalid", Fault.CLIENT, 422


class NotFound(BrokerError):
    """No such topic, group or message."""

    code, fault, status = "not-found", Fault.CLIENT, 404


class Exclusive(BrokerError):
    """The group has an exclusive member already."""

    code, fault, status = "exclusive", Fault.CLIENT, 409


class Fenced(BrokerError):
    """A newer epoch of the same producer has published; this one must stop (Kafka: PRODUCER_FENCED)."""

    code, fault, status = "fenced", Fault.CLIENT, 409


class SequenceGap(BrokerError):
    """A producer's sequence is neither the next one nor a remembered one (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER)."""

    code, fault, status = "sequence", Fault.CLIENT, 409


class LeaseLost(BrokerError):
    """The message is not this member's any more: the lease ended, and it was or will be delivered again."""

    code, fault, status = "lease-lost", Fault.CLIENT, 409


class Overloaded(BrokerError):
    """More bytes wait for the disk than the limit allows; try again later."""

    code, status = "overloaded", 503

    def __init__(self, message: str = "") -> None:
        super().__init__(message, again=Again.UNSENT)


class DiskFull(BrokerError):
    """The disk is full: nothing is accepted until there is room; consumers are still served."""

    code, status = "disk-full", 507

    def __init__(self, message: str = "") -> None:
        super().__init__(message, again=Again.UNSENT)


class DiskFailed(BrokerError):
    """The disk failed to write or sync: nothing more is taken; what was not acknowledged may or may not be stored."""

    code, status = "disk-failed", 503


class Closed(BrokerError):
    """The broker, the subscription or the connection is closed."""

    code, status = "closed", 503


class Denied(BrokerError):
    """The caller may not do this."""

    code, fault, status = "denied", Fault.CLIENT, 403


class Aborted(BrokerError):
    """Another message of the atomic batch was refused, and so this one was not stored either."""

    code, fault, status = "aborted", Fault.CLIENT, 409


class Damaged(BrokerError):
    """What is on disk is not what was written; nothing is guessed, and the file is kept."""

    code = "damaged"


def codes() -> dict[str, type[BrokerError]]:
    """Every ``code`` with its class, to raise on the other side of a wire what was raised here."""
    kinds: list[type[BrokerError]] = [BrokerError, *BrokerError.__subclasses__()]
    return {kind.code: kind for kind in kinds}
