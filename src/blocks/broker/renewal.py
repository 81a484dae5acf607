"""A broker's users, tokens and certificates are read again while it runs: all of them right, or none of them taken.

Clients that are connected stay who they are until they connect again. The authority of clients' certificates can be added to, not taken
away from: that needs a restart.
"""

from __future__ import annotations

import ssl
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from blocks.core.config.state import Configuration, digest_of
from blocks.core.errors import ConfigError
from blocks.core.logging import events

from .security import Guard, read_guard
from .server import server_tls

if TYPE_CHECKING:
    from blocks.core.clock import Clock

    from .process import Settings


class Renewal:
    """What is in force of one process's settings. ``contexts`` are those of its listeners; ``guard`` is the one that all of them ask."""

    def __init__(self, settings: Settings, guard: Guard | None, clock: Clock) -> None:
        self.contexts: list[ssl.SSLContext] = []
        self._settings = settings
        self._guard = guard
        self._clock = clock
        flags = asdict(settings)
        flags |= flags.pop("broker")
        self._flags = flags
        self._loaded = clock.wall()
        self._last_error = ""

    def configuration(self) -> Configuration:
        """The flags, since when they are in force with what their files say, and what was wrong with later files."""
        return Configuration(digest_of(self._flags), self._loaded, self._last_error, self._flags)

    def run(self) -> dict[str, Any]:
        """Read the files again. Raises ``ConfigError``, which is told as an event as well: nothing has changed then."""
        settings = self._settings
        try:
            fresh = read_guard(settings.token_file) if settings.token_file is not None else None
            server_tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        except ConfigError as error:
            self._last_error = str(error)
            events().error("reload-refused", error=str(error))
            raise
        if fresh is not None and self._guard is not None:
            self._guard.become(fresh)
        if settings.tls_cert is not None:
            for context in self.contexts:
                context.load_cert_chain(settings.tls_cert, settings.tls_key)
                if settings.tls_client_ca is not None:
                    context.load_verify_locations(settings.tls_client_ca)
        self._last_error = ""
        self._loaded = self._clock.wall()
        events().info("reloaded", users_and_tokens=len(self._guard or ()), certificates=len(self.contexts))
        return {"status": "reloaded"}
