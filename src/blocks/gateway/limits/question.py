"""What is asked of Redis: the words of one EVALSHA for several limits, and the script's text when Redis has forgotten it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..redis import Link, RedisRefused
from .compiled import Rule, Tier
from .gcra import Gcra
from .quota import Quota
from .script import SCRIPT, SHA

DEBT = 2.0  # spans: what a learnt cost may make a client owe is at most one more burst, as in memory


async def ask(link: Link, asked: Sequence[tuple[Rule, Tier, str, float]], *, force: bool = False) -> list[int]:
    """Three whole numbers for each limit (see ``script``). Raises ``Unavailable``."""
    words = words_of(link, asked, force=force)
    try:
        answer = await link.call(*words)
    except RedisRefused as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
        answer = await link.call("EVAL", SCRIPT, *words[2:])
    return list(answer)


def words_of(link: Link, asked: Sequence[tuple[Rule, Tier, str, float]], *, force: bool = False) -> tuple[Any, ...]:
    """EVALSHA, the script, the number of keys, the keys, and eight arguments a limit."""
    keys: list[str] = []
    arguments: list[Any] = []
    for rule, tier, key, cost in asked:
        keys.append(f"{link.prefix}limit:{rule.state}:{key}")
        arguments += shape_of(tier, cost, force, rule.limit.dry_run, DEBT)
    return ("EVALSHA", SHA, len(keys), *keys, *arguments)


def shape_of(tier: Tier, cost: float, force: bool, dry: bool, debt: float) -> tuple[Any, ...]:
    """The eight arguments of one limit."""
    own = tier.own
    head = (cost, 1 if force else 0, 1 if dry else 0)
    if isinstance(own, Gcra):
        return ("g", *head, own.interval, own.span, own.span * debt, 0)
    if isinstance(own, Quota):
        begin, end, after = own.spans()
        return ("q", *head, own.amount, int(begin), int(end), int(after))
    return ("w", *head, own.amount, own.period, 0, 0)
