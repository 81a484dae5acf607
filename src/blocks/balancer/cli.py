"""``blocks balancer``: a load balancer as a process."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from blocks.core.errors import ConfigError
from blocks.http.options import DURATION, Serving, serving_options


def _upstream_url(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Every URL is looked at, so that all mistakes are said in one run."""
    from blocks.http.upstream import Upstream

    wrong = []
    for value in values:
        try:
            Upstream(value)
        except ConfigError as error:
            wrong.append(str(error))
    twice = sorted({value for value in values if values.count(value) > 1})
    wrong.extend(
        f"{value!r} is given twice; a server gets more requests by a weight, not by a second name" for value in twice
    )
    if wrong:
        raise click.BadParameter("; ".join(wrong), ctx, param)
    return values


def _policy(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from random import Random

    from .policies import policy_of

    try:
        policy_of(value, Random())
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


@click.command("balancer", context_settings={"max_content_width": 120})
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    required=True,
    metavar="URL",
    callback=_upstream_url,
    help="A server to balance over; may be repeated.",
)
@click.option(
    "--policy",
    default="p2c",
    show_default=True,
    callback=_policy,
    help="p2c, round-robin, least-requests, random or consistent-hash.",
)
@click.option("--health-path", metavar="PATH", help="Probe this path of each upstream; without it no probe is sent.")
@click.option(
    "--health-interval", type=DURATION, default=2.0, show_default="2s", help="Between two probes of an upstream."
)
@click.option("--health-timeout", type=DURATION, default=1.0, show_default="1s", help="For one probe.")
@click.option(
    "--rise",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Good probes in a row that bring an upstream back.",
)
@click.option(
    "--fall", type=click.IntRange(min=1), default=3, show_default=True, help="Bad probes in a row that take it out."
)
@click.option(
    "--upstream-timeout", type=DURATION, default=60.0, show_default="60s", help="Longest silence of an upstream."
)
@click.option("--connect-timeout", type=DURATION, default=5.0, show_default="5s", help="For connecting to an upstream.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Further tries of an idempotent request.",
)
@click.option(
    "--max-requests", type=click.IntRange(min=1), help="Requests under way on one upstream; more wait in the queue."
)
@click.option("--queue", type=click.IntRange(min=0), help="Requests that may wait; more get 503.")
@click.option(
    "--trusted-proxy",
    "trusted",
    multiple=True,
    metavar="NETWORK",
    help="Believe X-Forwarded-For from here; may be repeated.",
)
@click.option(
    "--forwarded/--no-forwarded",
    default=True,
    show_default=True,
    help="Tell upstreams who the client is (X-Forwarded-*, Forwarded, Via).",
)
@serving_options("127.0.0.1:8080")
def balancer(serving: Serving, **flags: Any) -> None:
    """Balance HTTP requests over servers, with health checks, retries and draining.

    Prints one JSON line when it is ready. SIGTERM drains, SIGHUP reloads certificates and reopens the log.
    """
    if flags["health_path"] is not None and not flags["health_path"].startswith("/"):
        raise click.BadParameter(
            f"{flags['health_path']!r} does not begin with /; did you mean {'/' + flags['health_path']!r}?",
            param_hint="--health-path",
        )
    from blocks.http.process import run_process

    run_process("balancer", lambda: _build(flags), serving, admin=_admin)


def _admin(app: Any, handler: Any) -> None:
    from .admin import add_routes  # aiohttp is 14 MiB that a process without an admin API does not hold

    add_routes(app, handler)


def _build(flags: dict[str, Any]) -> Any:
    from blocks.http.filters.forwarded import Forwarded
    from blocks.http.handler import chain
    from blocks.http.upstream import Upstream

    from .balancer import LoadBalancer
    from .health import Health

    health = None
    if flags["health_path"] is not None:
        health = Health(
            flags["health_path"],
            interval=flags["health_interval"],
            timeout=flags["health_timeout"],
            rise=flags["rise"],
            fall=flags["fall"],
        )
    handler = LoadBalancer(
        flags["upstreams"],
        upstream=partial(Upstream, timeout=flags["upstream_timeout"], connect_timeout=flags["connect_timeout"]),
        policy=flags["policy"],
        health=health,
        retries=flags["retries"],
        max_requests=flags["max_requests"],
        queue=flags["queue"],
    )
    return chain(Forwarded(flags["trusted"]), to=handler) if flags["forwarded"] else handler
