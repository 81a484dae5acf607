"""``blocks check``: everything that is wrong with a stack's file, or a gateway's, in one run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from blocks.core.config.complaint import Complaint, ConfigErrors
from blocks.core.errors import BlocksError, MissingExtra

if TYPE_CHECKING:
    from .source import Source
    from .version import Version

CONFIGURATION = 3
FILE = click.Path(dir_okay=False, path_type=Path)
_ONLY_STACK = frozenset(
    ("include", "process", "servers", "upstreams", "balancers", "gateways", "edges", "apps")
)  # brokers may stand in both
_ONLY_GATEWAY = frozenset(
    ("gateway", "routes", "services", "limits", "auth", "consumers", "alerts", "change", "versions", "redis")
)


class Examined(NamedTuple):
    """A file that was looked at: ``found`` is all that is wrong or doubtful, ``version`` the stack (None when it cannot be made)."""

    source: Source
    found: list[Complaint]
    version: Version | None

    @property
    def errors(self) -> list[Complaint]:
        """What keeps it from running."""
        return [one for one in self.found if one.level == "error"]


def examine(path: Path, environment: Mapping[str, str] | None = None) -> Examined:
    """Look at a stack's file without starting anything; nothing is raised."""
    from random import Random

    from blocks.core.clock import SYSTEM

    from .settings import NOTHING_LISTENS, serves
    from .source import Source, gather
    from .version import assemble

    filled = os.environ if environment is None else environment
    try:
        source, told = gather(path, filled)
    except MissingExtra as error:
        return Examined(Source(path, {}), [Complaint((), str(error))], None)
    if told and not source.tables:
        return Examined(source, told, None)
    version, found = assemble(source, told, clock=SYSTEM, random=Random(0), environment=filled)
    if not serves(version.settings) and not _servers_meant(source.tables):
        found.append(Complaint((), NOTHING_LISTENS))
    return Examined(source, found, None if any(one.level == "error" for one in found) else version)


def _servers_meant(tables: Mapping[str, Any]) -> bool:
    """Whether another mistake may be why there is no server: a table that is misspelt, or a server that is wrong."""
    from .tables import KINDS

    return bool(tables.get("servers")) or not set(tables) <= {"include", "process", *KINDS}


def opened(path: Path) -> Examined:
    """A stack's file that is right, or an exit with 3 and everything that is wrong with it."""
    if is_gateway(path):
        raise click.UsageError(f"{path} is a gateway's own file; see blocks gateway explain and blocks gateway routes")
    examined = examine(path)
    if examined.errors:
        click.echo(examined.source.report(examined.errors), err=True)
        sys.exit(CONFIGURATION)
    return examined


def is_gateway(path: Path) -> bool:
    """Whether it is a gateway's own file and not a stack's, by its tables; a file that cannot be read is a stack's."""
    from blocks.core.config.read import parse

    try:
        tables = set(parse(path.read_text("utf-8"), path.suffix))
    except (OSError, ValueError, MissingExtra, RecursionError):
        return False
    return not tables & _ONLY_STACK and bool(tables & _ONLY_GATEWAY)


Rows = list[dict[str, Any]]


def _stack(path: Path) -> tuple[Rows, str]:
    """The rows of a stack's file for programs, and the report for people."""
    from .source import StackErrors

    examined = examine(path)
    return StackErrors(examined.found, examined.source).rows(), examined.source.report(examined.found)


def _gateway(path: Path) -> tuple[Rows, str]:
    from blocks.core.config.report import report, rows_of
    from blocks.gateway.config.load import load

    from .sense.causes import first_causes

    try:
        loaded = load(path)
        found = ConfigErrors(loaded.warnings, loaded.source)
    except ConfigErrors as error:
        found = error
    except BlocksError as error:  # an optional library that is not there
        found = ConfigErrors([Complaint((), str(error))])
    if found.source is not None:
        found = ConfigErrors(first_causes(found.complaints, found.source.tables), found.source)
    return rows_of(found, str(path)), report(found.complaints, found.source, str(path))


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of what was found, instead of text.")
def check(files: tuple[Path, ...], strict: bool, as_json: bool) -> None:
    """Say everything that is wrong with FILES, with line and column: stacks and gateways. Exits with 3 when something is.

    Nothing is started and no port is taken; files that are named are opened, and applications are imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # applications are looked for here first, as when the stack runs
    everything: Rows = []
    failed = False
    for path in files:
        rows, text = _gateway(path) if is_gateway(path) else _stack(path)
        wrong = sum(row["level"] == "error" or strict for row in rows)
        failed = failed or bool(wrong)
        everything += rows
        if as_json:
            continue
        if text:
            click.echo(text, err=True)
        click.echo(_summary(path, rows, wrong), err=bool(wrong))
    if as_json:
        click.echo(json.dumps(everything, indent=2, ensure_ascii=False))
    if failed:
        sys.exit(CONFIGURATION)


def _summary(path: Path, rows: Rows, wrong: int) -> str:
    warnings = sum(row["level"] != "error" for row in rows)
    said = f"{warnings} warning{'' if warnings == 1 else 's'}"
    errors = len(rows) - warnings
    return f"{path}: {errors} error{'' if errors == 1 else 's'}, {said}" if wrong else f"{path}: fine, {said}"
