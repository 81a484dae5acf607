"""Every error says whose fault it is, whether trying again is safe, and what caused it.

A refusal that is an answer (401, 404, 429) is a response, not an error. What is here is raised.
Source of the idea: Pingora's error type (``esource``, ``retry``, ``cause``).
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Who has to act for the failure to go away."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    OURSELVES = "ourselves"


class Again(Enum):
    """Whether the same request may be sent once more. Retry rules read this value, never a type's name."""

    UNSENT = "unsent"  # no byte of the request left this process: safe for every method
    REUSED = (
        "reused"  # a kept-alive connection closed before any answer byte: safe for idempotent methods (RFC 9110 §9.2.2)
    )
    NEVER = "never"  # the other side may have acted on it


class BlocksError(Exception):
    """The root of everything that ``blocks`` raises on purpose."""


class ConfigError(BlocksError, ValueError):
    """A setting is wrong; the message names it, what was given, and what would be right."""


class MissingExtra(BlocksError, ImportError):
    """A feature needs a library that the base install leaves out; the message gives the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional library: pip install 'blocks[{extra}]'")
        self.extra = extra


class Failure(BlocksError):
    """A request could not be answered.

    ``fault`` says whose fault it is, ``again`` whether a retry is safe, ``status`` the HTTP status that tells a
    client so, ``reason`` a short constant for metrics and logs (``connect-refused``); ``__cause__`` is the cause.
    """

    fault = Fault.OURSELVES
    status = 500
    reason = "internal"

    def __init__(
        self, message: str, *, reason: str | None = None, status: int | None = None, again: Again = Again.NEVER
    ) -> None:
        super().__init__(message)
        self.again = again
        if reason is not None:
            self.reason = reason
        if status is not None:
            self.status = status


class ClientFault(Failure):
    """The client sent something that must be refused (RFC 9110 §15.5)."""

    fault = Fault.CLIENT
    status = 400
    reason = "bad-request"


class ClientGone(ClientFault):
    """The client closed its connection before the answer was complete (nginx logs this as 499)."""

    status = 499
    reason = "client-gone"


class UpstreamFault(Failure):
    """The upstream did not give a usable answer (502, RFC 9110 §15.6.3)."""

    fault = Fault.UPSTREAM
    status = 502
    reason = "bad-gateway"


class UpstreamTimeout(UpstreamFault):
    """The upstream did not answer in time (504, RFC 9110 §15.6.5)."""

    status = 504
    reason = "upstream-timeout"


class Unavailable(Failure):
    """Nobody is there to take the request now (503, RFC 9110 §15.6.4): all down, queue full, draining."""

    fault = Fault.UPSTREAM
    status = 503
    reason = "unavailable"
