"""``blocks top``: a running process in a terminal, drawn anew every second."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from blocks.core.errors import ConfigError, MissingExtra
from blocks.core.quantities import seconds

from .remote import Remote, Unreachable
from .remote_cli import HELP, allowed, fail, remote
from .remote_report import summary
from .top import Look, view

_SHORTEST = 0.1  # seconds between two looks: a scrape of many series takes the process milliseconds
_EVENTS = 6


def _interval(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        found = seconds(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if found < _SHORTEST:
        raise click.BadParameter(f"at least {_SHORTEST:g}s lie between two looks", ctx, param)
    return found


@click.command("top", context_settings=HELP)
@click.option(
    "--interval", default="1s", show_default=True, callback=_interval, metavar="DURATION", help="Between two looks."
)
@click.option(
    "--once", is_flag=True, help="Look twice, show what was in between, and end. Without a terminal that is all."
)
@click.option("--json", "as_json", is_flag=True, help="JSON, one line for each look.")
@remote("10s")
def top(remote: Remote, interval: float, once: bool, as_json: bool) -> None:
    """Show what a running process does: rates, answers by class, p50 to p99.9, and each block's own figures."""
    try:
        if as_json:
            _print_lines(remote, interval, once)
        else:
            _draw(remote, interval, once)
    except KeyboardInterrupt:
        sys.exit(0)


def look(remote: Remote) -> Look:
    """One look at the process. Raises ``Unreachable``; leaves with 1 when it does not let us look."""
    answer = remote.ask("GET", "/metrics.json")
    allowed(answer)
    if answer.status != 200 or not isinstance(answer.body, dict):
        fail(f"{remote.url} is no admin API: it answers {answer.status} to /metrics.json")
    at = time.monotonic()
    status = [body for code, body in remote.ask("GET", "/v1/status").each() if code == 200 and isinstance(body, dict)]
    return Look(at, answer.body, summary(status) if status else {})


def _print_lines(remote: Remote, interval: float, once: bool) -> None:
    before = look(remote)
    while True:
        time.sleep(interval)
        after = look(remote)
        click.echo(json.dumps(view(before, after)))
        if once:
            return
        before = after


def _draw(remote: Remote, interval: float, once: bool) -> None:
    try:
        from rich.console import Console
        from rich.live import Live

        from .top_screen import Screen
    except ImportError:
        fail(str(MissingExtra("blocks top", "top")))
    console, screen = Console(), Screen(remote.url)
    before = look(remote)
    if once or not console.is_terminal:
        time.sleep(interval)
        console.print(screen.draw(view(before, look(remote)), _events(remote)))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            try:
                after = look(remote)
                live.update(screen.draw(view(before, after), _events(remote)), refresh=True)
                before = after
            except Unreachable as error:
                live.update(screen.lost(str(error)), refresh=True)


def _events(remote: Remote) -> list[Mapping[str, Any]]:
    """The last events of all workers, the newest last."""
    found: list[Mapping[str, Any]] = []
    for code, body in remote.ask("GET", f"/v1/events?last={_EVENTS}").each():
        if code == 200 and isinstance(body, list):
            found += [event for event in body if isinstance(event, dict)]
    return sorted(found, key=lambda event: float(event.get("at") or 0))[-_EVENTS:]
