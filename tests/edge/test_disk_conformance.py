"""The conversations of the conformance tables once more, with a restart between any two turns: all that is known comes from the disk.

Parts of a body (206) are kept in memory alone, so their table is not among these.
"""

from __future__ import annotations

import tempfile

import pytest

from blocks.core.errors import Failure
from blocks.edge.store.disk import DiskStore
from blocks.http import Response
from edge.conversation import Stage, Turn
from edge.test_conformance import ALL as FIRST
from edge.test_conformance_more import ALL as SECOND

pytestmark = pytest.mark.integration

ROWS = [row for row in [*FIRST, *SECOND] if not str(row.id).startswith("stored parts")]


class Restarting(Stage):
    def __post_init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__post_init__()

    async def play(self, turn: Turn) -> Response | Failure:
        edge = self.edge
        edge.store = store = DiskStore(self.folder.name, "8MiB", clock=self.clock)
        edge.library.store = store
        async with store:
            try:
                return await super().play(turn)
            finally:
                await store.sync()
                for key in list(edge.memory.entries):
                    edge.memory.remove(key)


@pytest.mark.parametrize("turns", ROWS)
async def test_a_conversation_over_restarts(turns: list[Turn]) -> None:
    stage = Restarting("rfc")
    with stage.folder:
        for turn in turns:
            await stage.play(turn)
