"""The gateway as a process runs it: a file that can be read again, trials of what it says, and alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from blocks.core.clock import SYSTEM, Clock
from blocks.core.config.complaint import ConfigErrors
from blocks.core.config.report import report, report_error
from blocks.core.config.state import Configuration
from blocks.core.errors import ConfigError
from blocks.core.logging import events
from blocks.core.turns import short_turns
from blocks.http.message import Request, Response

from .alerts import Alerts
from .change import Changes, Judgement
from .config.load import Loaded, Objects, load
from .gateway import Gateway

_REPORT_WITHIN = 5.0  # seconds that whoever asks for a reload waits for its end


class Front:
    """A handler over a gateway that was read from ``path``. ``reload`` reads it again and tries what it says.

    ``loaded`` is what the file came to when somebody has read it already.
    """

    direct = True
    name = "gateway"

    def __init__(
        self, path: Path, *, objects: Objects | None = None, clock: Clock = SYSTEM, loaded: Loaded | None = None
    ) -> None:
        self.path = path
        self._objects = objects or Objects()
        self._clock = clock
        self.loaded = load(path, objects=self._objects, clock=clock) if loaded is None else loaded
        self.gateway = Gateway.of(self.loaded.snapshot)
        self.changes = Changes(self.gateway, self.loaded.settings.change, clock=clock, told=_tell)
        self.alerts = Alerts(self.gateway, self.loaded.settings.alerts, clock=clock, told=_tell)
        self._task: asyncio.Task[Judgement] | None = None
        self._started = False
        self._again = False
        self._loaded_at = clock.wall()
        self.last_error = ""

    @property
    def parts(self) -> tuple[object, ...]:
        """The gateway."""
        return (self.gateway,)

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Answer one request."""
        return self.gateway(request)

    async def __aenter__(self) -> Front:
        await self.alerts.__aenter__()
        self._started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._started = False
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.alerts.__aexit__()

    def reload(self) -> None:
        """Begin to read the file again (SIGHUP). What is wrong with it is an event, and nothing changes.

        While a trial runs, any number of calls is one more reading after it: a storm of signals is two trials, not a queue of them.
        """
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._again = False
        self._task = asyncio.get_running_loop().create_task(self.apply())
        self._task.add_done_callback(self._reloaded)

    def _reloaded(self, task: asyncio.Task[Judgement]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConfigErrors):  # those have been told, each with its place
            events().error("reload_failed", error=str(error))
        if self._again and self._started:
            self.reload()

    async def reload_now(self) -> dict[str, Any]:
        """Read the file again and say how that went; a trial that takes longer than ``_REPORT_WITHIN`` goes on by itself (``on-trial``).

        Raises ``ConfigErrors``, and ``ConfigError`` when the trial was lost: the old one is in force.
        """
        if self._task is not None and not self._task.done():
            raise ConfigError("another configuration is being tried; wait for it, or abort it")
        task = self._task = asyncio.get_running_loop().create_task(self.apply())
        task.add_done_callback(self._reloaded)
        await asyncio.wait([task], timeout=_REPORT_WITHIN)
        if not task.done():
            return {"status": "on-trial"}
        judgement = task.result()
        if judgement.verdict != "promote":
            raise ConfigError(f"{judgement.verdict}: {judgement.why}")
        return {"status": "reloaded", "digest": self.loaded.digest}

    def configuration(self) -> Configuration:
        """What is in force, and what was wrong with the last file that is not."""
        source = self.loaded.source
        return Configuration(self.loaded.digest, self._loaded_at, self.last_error, source.tables, source.secrets)

    async def apply(self, *, share: float | None = None) -> Judgement:
        """Read the file again and try it; returns when it was promoted or rolled back. Raises ``ConfigErrors``: nothing has changed.

        The file is read and built in a thread, so that requests go on meanwhile.
        """
        try:
            with short_turns():
                loaded = await asyncio.to_thread(
                    load, self.path, objects=self._objects, kept=self.gateway.kept, clock=self._clock
                )
        except ConfigErrors as error:
            self.last_error = report_error(error, str(self.path))
            events().error("reload_refused", file=str(self.path), errors=len(error.complaints), report=self.last_error)
            raise
        for line in report(loaded.warnings, loaded.source, str(self.path)).splitlines()[::3]:
            events().warning("configuration", message=line)
        judgement = await self.changes.apply(loaded.snapshot, share=share)
        if judgement.verdict == "promote":
            self.last_error = ""
            self.changes.rules = loaded.settings.change
            await self._watch(loaded)
            self.loaded = loaded
            self._loaded_at = self._clock.wall()
        return judgement

    async def _watch(self, loaded: Loaded) -> None:
        """Alert by the new rules; where they are the old ones, what rings goes on ringing."""
        if loaded.settings.alerts == self.loaded.settings.alerts:
            return
        old, self.alerts = self.alerts, Alerts(self.gateway, loaded.settings.alerts, clock=self._clock, told=_tell)
        if self._started:
            await old.__aexit__()
            await self.alerts.__aenter__()


def _tell(event: str, fields: dict[str, Any]) -> None:
    if event == "alert" and fields["state"] == "firing":
        events().warning("alert", **fields)
    else:
        events().info(event, **fields)
