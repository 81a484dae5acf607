"""``[balancers.NAME]``: a load balancer over URLs and over handlers of the stack."""

from __future__ import annotations

from functools import partial
from typing import Any

from blocks.core.config.complaint import At, below
from blocks.core.errors import ConfigError

from ..bench import Bench, is_url
from ..node import Node
from ..tables import BalancerTable, HealthTable, MemberTable, given

_SETTINGS = ("max_requests", "timeout", "slow_start")
_MEMBER = ("weight", "priority", "zone", "max_requests", "metadata")


def make(name: str, table: BalancerTable, bench: Bench) -> Node:
    """The balancer; members that were there before keep their connections and what is known of their health."""
    from blocks.balancer import LoadBalancer
    from blocks.http import Upstream

    before = bench.before.get(("balancers", name))
    members = _Members(table, bench, before)
    endpoints = [made for place, member in enumerate(table.upstreams) if (made := members.make(member, place))]
    if not table.upstreams:
        bench.complain(("upstreams",), "a balancer needs upstreams: URLs, or names of handlers")
    balancer = LoadBalancer(
        endpoints, **given(table, *_SETTINGS), **_rules(table), name=name, clock=bench.clock, random=bench.draw(),
        upstream=partial(Upstream, **members.timeouts),
    )  # fmt: skip
    node = Node("balancers", name, balancer, front=bench.told(balancer, table.forwarded, table.trusted))
    node.members = members.settings
    if before is not None:
        node.joins = lambda: _join(balancer, before.block, members.stay)
    return node


def _join(balancer: Any, before: Any, stay: list[tuple[Any, Any]]) -> None:
    for row, old in stay:
        row.inherit(old)
    balancer.inherit(before)


class _Members:
    """Makes the rows of the balancer's table; ``settings`` are what their handlers were made of, by name.

    ``stay`` are those that take the place of a row of the same server.
    """

    def __init__(self, table: BalancerTable, bench: Bench, before: Node | None) -> None:
        self.timeouts = given(table, "connect_timeout")
        if table.upstream_timeout is not None:
            self.timeouts["timeout"] = table.upstream_timeout
        self._bench = bench
        self._known = {} if before is None else {one.name: one for one in before.block.endpoints}
        self._before: dict[str, Any] = {} if before is None else before.members
        self.settings: dict[str, Any] = {}
        self.stay: list[tuple[Any, Any]] = []

    def make(self, given_as: str | MemberTable, place: int) -> Any:
        """One row; None, and noted, when it is wrong."""
        at = ("upstreams", place)
        member = given_as
        if isinstance(member, str):
            member = MemberTable(url=member) if is_url(member) else MemberTable(upstream=member)
        if (member.url is None) == (member.upstream is None):
            self._bench.complain(at, "a member has exactly one of url and upstream (the NAME of a handler)")
            return None
        name = member.name or member.url or member.upstream or ""
        if name in self.settings:
            self._bench.complain(at, f"the member {name!r} is there twice; give it a weight, or a name of its own")
            return None
        try:
            return self._row(member, name, at)
        except ConfigError as error:
            self._bench.complain(at, str(error))
            return None

    def _row(self, member: MemberTable, name: str, at: At) -> Any:
        from blocks.balancer import Endpoint

        if member.url is None:
            settings: Any = member.upstream
            handler: Any = self._bench.member(str(member.upstream), *at)
        else:
            settings = (member.url, self.timeouts)
            handler = self._bench.upstream(member.url, **self.timeouts)
        stays = self._known.get(name) if self._before.get(name) == settings else None
        row = Endpoint(handler if stays is None else stays.handler, name=name, **given(member, *_MEMBER))
        if stays is not None:
            self.stay.append((row, stays))
        self.settings[name] = settings
        return row


def _rules(table: BalancerTable) -> dict[str, Any]:
    """The settings that are values of their own."""
    from blocks.balancer import Outlier, Queue, Retries

    rules: dict[str, Any] = _policy(table)
    if table.health is not None:
        with below("health"):
            rules["health"] = _health(table.health)
    if table.outlier is False:
        rules["outlier"] = None
    elif table.outlier not in (None, True):
        with below("outlier"):
            rules["outlier"] = Outlier(**given(table.outlier))  # type: ignore[arg-type]  # a table by now
    if table.retries is not None:
        with below("retries"):
            rules["retries"] = table.retries if isinstance(table.retries, int) else Retries(**given(table.retries))
    if table.queue is not None:
        with below("queue"):
            rules["queue"] = table.queue if isinstance(table.queue, int) else Queue(**given(table.queue))
    if table.panic is True:
        raise ConfigError("panic is a share between 0 and 1, or false for never")
    if table.panic is not None:
        rules["panic"] = None if table.panic is False else table.panic
    return rules


def _policy(table: BalancerTable) -> dict[str, Any]:
    """The policy; what consistent hashing looks at makes one of its own."""
    if table.hash_by is None and table.hash_bound is None:
        return given(table, "policy")
    from random import Random

    from blocks.balancer import Ring, by_client, by_header, by_path
    from blocks.balancer.policies import policy_of

    if table.policy is not None and not isinstance(policy_of(table.policy, Random()), Ring):
        raise ConfigError(f"hash_by and hash_bound are for policy = 'consistent-hash', not for {table.policy!r}")
    by = table.hash_by or "client"
    kind, _, name = by.partition(":")
    if kind == "header" and name.strip():
        key = by_header(name.strip())
    elif by in ("client", "path"):
        key = by_client if by == "client" else by_path
    else:
        raise ConfigError(f"hash_by={by!r} is not known; it is client, path or header:NAME")
    return {"policy": Ring(key, **({} if table.hash_bound is None else {"bound": table.hash_bound}))}


def _health(given_as: HealthTable | str | float) -> Any:
    from blocks.balancer import Health

    return given_as if not isinstance(given_as, HealthTable) else Health(**given(given_as))
