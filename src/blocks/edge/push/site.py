"""Which release of a site is served, and how that changes on many edges at once or on none: prepare, commit, revert. Sans-IO.

prepare reserves the site for one transaction and ends by itself after ``LEASE``; commit switches; revert undoes that very commit. Each may
be asked again with the same transaction and does the same, so that a client that lost an answer can ask once more.
"""

from __future__ import annotations

import msgspec

from blocks.core.errors import ConfigError

LEASE = 15.0  # seconds that a prepared transaction keeps others out; between prepare and commit lies one round trip
HISTORY = 20  # activations remembered


class Conflict(Exception):
    """The change cannot be made now; the message says who is in the way."""


class Prepared(msgspec.Struct, frozen=True):
    """A transaction that may commit until ``until`` (wall clock)."""

    transaction: str
    release: str
    until: float


class Activation(msgspec.Struct, frozen=True):
    """That ``release`` ("" for none) became active at ``at`` (wall clock), in place of ``before``."""

    release: str
    before: str
    transaction: str
    at: float


class Site(msgspec.Struct):
    """A site's state, as it is kept on disk."""

    name: str
    active: str = ""
    prepared: Prepared | None = None
    history: list[Activation] = []

    @property
    def previous(self) -> str:
        """What a rollback goes to: what was active before what is active now became so; "" when there is none."""
        for activation in reversed(self.history):
            if activation.release == self.active:
                return activation.before
        return ""

    def prepare(self, transaction: str, release: str, now: float) -> None:
        """Reserve the site. Raises ``Conflict`` while another transaction holds it."""
        held = self.prepared
        if held is not None and held.transaction != transaction and held.until > now:
            raise Conflict(
                f"site {self.name}: another activation (of {held.release}) is under way; it ends in {held.until - now:.0f} s at most"
            )
        self.prepared = Prepared(transaction, release, now + LEASE)

    def commit(self, transaction: str, now: float) -> str:
        """Switch; returns the release. Raises ``Conflict`` when the transaction is not the prepared one, or too late."""
        if self.history and self.history[-1].transaction == transaction:
            return self.active
        held = self.prepared
        if held is None or held.transaction != transaction or held.until <= now:
            raise Conflict(f"site {self.name}: this transaction was not prepared, or its time is up; prepare it again")
        self._switch(held.release, transaction, now)
        return self.active

    def abort(self, transaction: str) -> None:
        """Let the site go, if this transaction holds it."""
        if self.prepared is not None and self.prepared.transaction == transaction:
            self.prepared = None

    def revert(self, transaction: str, now: float) -> str:
        """Undo the commit of ``transaction`` if it was the last one, else only let its reservation go; returns what is active then."""
        self.abort(transaction)
        last = self.history[-1] if self.history else None
        if last is not None and last.transaction == transaction:
            self._switch(last.before, f"revert-{transaction}", now)
        return self.active

    def _switch(self, release: str, transaction: str, now: float) -> None:
        self.history = [*self.history, Activation(release, self.active, transaction, now)][-HISTORY:]
        self.active = release
        self.prepared = None


def encode(site: Site) -> bytes:
    """The state as JSON."""
    return msgspec.json.encode(site)


def decode(data: bytes) -> Site:
    """The state of a file. Raises ``ConfigError`` when it is none."""
    try:
        return msgspec.json.decode(data, type=Site)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(f"not a site's state: {error}") from None
