"""``blocks run``: a stack from a file, as a process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from blocks.core.errors import BlocksError, ConfigError
from blocks.http.options import ADDRESS, DURATION, Serving

CONFIGURATION = 3
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("run", context_settings={"max_content_width": 120})
@click.argument("file", type=_FILE, metavar="FILE")
@click.option("--workers", type=click.IntRange(min=1, max=256), help="Processes that share the listeners.")
@click.option("--admin", type=ADDRESS, help="Address of the admin API.")
@click.option("--admin-token-file", type=click.Path(exists=True, dir_okay=False), help="File with its bearer token.")
@click.option("--ports-file", type=click.Path(dir_okay=False), help="File to write the ready line to.")
@click.option("--drain-timeout", type=DURATION, help="For requests under way when told to stop.")
@click.option("--lame-duck", type=DURATION, help="Before that: answer on, but say not ready.")
def run(file: Path, **flags: Any) -> None:
    """Run the stack of FILE: servers, gateways, edges, balancers, brokers and applications in one process.

    Prints one JSON line when it is ready. SIGTERM drains, SIGHUP reads FILE again: what is wrong with it changes nothing. Flags go before
    what [process] says.
    """
    from .source import StackErrors
    from .stack import Stack

    sys.path.insert(0, "")  # applications by import path are looked for here first (uvicorn's --app-dir)

    try:
        stack = Stack.load(file, workers=flags["workers"])
        serving = _serving(stack, flags)
    except StackErrors as error:
        click.echo(error.report(), err=True)
        count = len(error.complaints)
        click.echo(f"blocks: {count} error{'s' if count != 1 else ''}", err=True)
        sys.exit(CONFIGURATION)
    except (ConfigError, BlocksError) as error:
        click.echo(f"blocks: {error}", err=True)
        sys.exit(CONFIGURATION)
    if stack.warnings:
        click.echo(stack.version.source.report(stack.warnings), err=True)
    from blocks.http.process import run_job

    from .process import StackJob

    run_job(StackJob(stack, serving, flags["drain_timeout"]))


def _serving(stack: Any, flags: dict[str, Any]) -> Serving:
    """What holds for the process: the flags, then the file."""
    from blocks.core.quantities import seconds

    from .process import refuse_unservable

    refuse_unservable(stack)
    table = stack.version.settings.process
    folder = stack.version.source.folder(("process",))

    def path(key: str) -> str | None:
        given = getattr(table, key)
        return flags[key] or (None if given is None else str(folder / given))

    def time(key: str) -> float:
        return seconds(getattr(table, key) if flags[key] is None else flags[key])

    return Serving(
        listen=(),
        workers=flags["workers"] or table.workers,
        admin=flags["admin"] or table.admin,
        admin_token_file=path("admin_token_file"),
        ports_file=path("ports_file"),
        drain=time("drain_timeout"),
        lame_duck=time("lame_duck"),
    )
