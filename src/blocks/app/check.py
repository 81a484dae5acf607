"""``blocks check``: everything that is wrong with a stack's file, or a gateway's, in one run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from blocks.core.config.complaint import Complaint

if TYPE_CHECKING:
    from .source import Source
    from .tables import StackTable


def complaints(settings: StackTable, source: Source, told: Iterable[Complaint] = ()) -> list[Complaint]:
    """What does not make sense in a stack, errors and warnings; ``told`` is known already and is not said again.

    The rules look at ``source``, the tables as they were written, so that one that is wrong does not hide the others; ``settings`` (what
    could be read of them) is where the files of gateways are named.
    """
    from .sense.rules import judge

    return judge(source.tables, source.folder, {}, told)
