"""``blocks gateway``: a gateway as a process, and what an operator asks about its file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from blocks.core.errors import BlocksError
from blocks.http.options import Serving, serving_options

if TYPE_CHECKING:
    from .config.load import Loaded

CONFIGURATION = 3
_FILE = click.Path(dir_okay=False, path_type=Path)
_config = click.option("--config", "config", type=_FILE, help="The configuration file.")
_json = click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of text.")


def _path(ctx: click.Context, *given: Path | None) -> Path:
    """The file: the argument, the command's --config, or the group's."""
    parent = ctx.parent.params.get("config") if ctx.parent is not None else None
    for path in (*given, parent):
        if path is not None:
            return Path(path)
    raise click.UsageError("which file? give it with --config gateway.toml", ctx)


def _load(path: Path, *, warn: bool = False) -> Loaded:
    """The file, or an exit with 3 and everything that is wrong with it."""
    from blocks.core.config.complaint import ConfigErrors
    from blocks.core.config.report import report, report_error

    from .config.load import load

    try:
        loaded = load(path)
    except ConfigErrors as error:
        _refuse(report_error(error, str(path)), len([one for one in error.complaints if one.level == "error"]))
    except BlocksError as error:
        _refuse(f"{path}: error: {error}", 1)
    if warn and loaded.warnings:
        click.echo(report(loaded.warnings, loaded.source, str(path)), err=True)
    return loaded


def _refuse(text: str, errors: int) -> NoReturn:
    click.echo(text, err=True)
    click.echo(f"blocks: {errors} error{'s' if errors != 1 else ''}", err=True)
    sys.exit(CONFIGURATION)


@click.group("gateway", invoke_without_command=True, context_settings={"max_content_width": 120})
@_config
@serving_options("127.0.0.1:8080")
@click.pass_context
def gateway(ctx: click.Context, serving: Serving, config: Path | None) -> None:
    """One front door: routes, limits, identity. Without a command it serves what --config says.

    SIGHUP reads the file again: what is wrong with it is told and changes nothing, what is right is tried on a share of the requests
    and rolled back by itself when it is worse ([change]).
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # services of python = "module:name" are looked for here first (uvicorn's --app-dir)
    if ctx.invoked_subcommand is not None:
        return
    path = _path(ctx, config)
    from blocks.core.config.complaint import ConfigErrors
    from blocks.core.config.report import report_error
    from blocks.http.process import run_process

    from .admin import add_routes
    from .front import Front

    if serving.workers > 1:
        loaded = _load(path)  # every worker will read it: what is wrong with it is said once
        from .sharing import apart

        for told in apart(loaded.snapshot):
            click.echo(f"blocks: warning: {serving.workers} workers: {told}", err=True)

    def build() -> Front:
        try:
            return Front(path)
        except ConfigErrors as error:
            _refuse(report_error(error, str(path)), len(error.complaints))

    run_process("gateway", build, serving, admin=add_routes)


@gateway.command()
@click.argument("file", type=_FILE, required=False)
@_config
@_json
@click.pass_context
def check(ctx: click.Context, file: Path | None, config: Path | None, as_json: bool) -> None:
    """Say everything that is wrong with a file, with line and column. Exits with 3 when something is."""
    path = _path(ctx, file, config)
    if as_json:
        _check_json(path)
    loaded = _load(path, warn=True)
    routes = len(loaded.snapshot.lanes)
    click.echo(
        f"{path}: fine: {routes} route{'s' if routes != 1 else ''}, {len(loaded.warnings)} warnings, digest {loaded.digest}"
    )


def _check_json(path: Path) -> NoReturn:
    from blocks.core.config.complaint import ConfigErrors, dotted
    from blocks.core.config.places import nearest

    from .config.load import load

    source: Any
    try:
        loaded = load(path)
        complaints, source = loaded.warnings, loaded.source
    except ConfigErrors as error:
        complaints, source = error.complaints, error.source
    rows: list[dict[str, Any]] = []
    for one in complaints:
        place = nearest(source.places, one.at) if source is not None else None
        where = {"line": place.line, "column": place.column} if place is not None else {}
        rows.append({"file": str(path), **where, "level": one.level, "key": dotted(one.at), "message": one.message})
    click.echo(json.dumps(rows, indent=2))
    sys.exit(CONFIGURATION if any(one.level == "error" for one in complaints) else 0)


@gateway.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, required=False)
@_config
@_json
@click.pass_context
def diff(ctx: click.Context, old: Path, new: Path | None, config: Path | None, as_json: bool) -> None:
    """Say what differs between OLD and NEW (or the file of --config). Both must be right."""
    from .config.compare import compare

    found = compare(_load(old).source.tables, _load(_path(ctx, new, config)).source.tables)
    if as_json:
        click.echo(json.dumps([one._asdict() for one in found], indent=2, default=str))
        return
    for one in found:
        click.echo(one.line())
    if not found:
        click.echo("no difference")


@gateway.command()
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A field of the request; may be repeated."
)
@click.option("--client", default="127.0.0.1", show_default=True, help="The address that it comes from.")
@click.option("--consumer", "consumer", default="", help="Whose it is, as if authenticated.")
@click.option("--tier", default="", help="That consumer's tier.")
@_config
@_json
@click.pass_context
def explain(
    ctx: click.Context,
    method: str,
    url: str,
    headers: tuple[str, ...],
    client: str,
    consumer: str,
    tier: str,
    config: Path | None,
    as_json: bool,
) -> None:
    """Say which route METHOD URL would take, and every step and limit that it would meet. Nothing is asked or counted."""
    from .consumer import Consumer
    from .explain import explain as explained

    pairs: list[tuple[str, str]] = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.BadParameter(f"{header!r} is not NAME:VALUE", ctx)
        pairs.append((name.strip(), value.strip()))
    loaded = _load(_path(ctx, config))
    who = Consumer(consumer, tier=tier, method="explain") if consumer else None
    try:
        told = explained(loaded.snapshot, method, url, pairs, client=client, consumer=who)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    click.echo(json.dumps(told, indent=2, default=str) if as_json else _told(told))


def _told(told: dict[str, Any]) -> str:
    lines = [
        f"{key + ':':10} {told[key]}" for key in ("method", "target", "client", "path", "status", "why") if key in told
    ]
    if "route" in told:
        lines.append(f"route:     {told['route']}  ({told['template']})")
        if told["params"]:
            lines.append("params:    " + ", ".join(f"{name}={value}" for name, value in told["params"].items()))
        for number, step in enumerate(told["steps"], 1):
            lines.append(f"{number:>3}. {step['step']:12} {step['reason']}")
            for limit in step.get("limits", ()):
                key = limit["key"] or "(everybody)"
                note = f"  {limit['note']}" if "note" in limit else ""
                lines.append(
                    f"       {limit['name']}: {limit['rate']} per {limit['per']} [{limit['algorithm']}, {limit['store']}] key {key}{note}"
                )
        lines.append(f"service:   {told['service']}")
    return "\n".join(lines)


@gateway.command()
@click.argument("file", type=_FILE, required=False)
@_config
@_json
@click.pass_context
def routes(ctx: click.Context, file: Path | None, config: Path | None, as_json: bool) -> None:
    """List the routes with their methods, steps and services."""
    from .explain import service_name

    loaded = _load(_path(ctx, file, config))
    rows: list[dict[str, Any]] = []
    for lane in loaded.snapshot.lanes.values():
        route = lane.route
        rows.append(
            {
                "name": route.name,
                "methods": sorted(route.methods) if route.methods is not None else [],
                "host": list(route.hosts),
                "path": route.template.text,
                "version": route.version,
                "steps": list(lane.plan.names),
                "service": service_name(lane),
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        methods = "|".join(row["methods"]) or "*"
        host = row["host"][0] if row["host"] else ""
        click.echo(f"{methods:20} {host + row['path']:40} {' > '.join(row['steps']) or '-':40} {row['service']}")


@gateway.command()
@click.argument("name", required=False, default="")
@click.option(
    "--hash", "hash_input", is_flag=True, help="Hash a key that is read from standard input instead of making one."
)
@_json
def keys(name: str, hash_input: bool, as_json: bool) -> None:
    """Make an API key for the consumer NAME: the key is shown once, the file keeps its hash."""
    from .auth import hash_key, new_key

    if hash_input:
        given = sys.stdin.readline().strip()
        if len(given) < 16:
            raise click.UsageError("a key has at least 16 characters")
        key, digest = "", hash_key(given)
    else:
        key, digest = new_key()
    if as_json:
        click.echo(json.dumps({"consumer": name, **({"key": key} if key else {}), "hash": digest}))
        return
    if key:
        click.echo(f"# give this to the consumer; it is not shown again: {key}")
    click.echo(f"[consumers.{json.dumps(name or 'NAME')}]\nkeys = [{json.dumps(digest)}]")


@gateway.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--title", default="API", show_default=True)
@click.option("--api-version", default="1", show_default=True)
@click.option("--server", default="", help="The URL that clients use.")
@click.option("--html", "html", is_flag=True, help="A page of HTML instead.")
@_config
@click.pass_context
def openapi(
    ctx: click.Context, file: Path | None, title: str, api_version: str, server: str, html: bool, config: Path | None
) -> None:
    """Print an OpenAPI 3.1 document of the routes, or a page of HTML."""
    from .documents import openapi as document
    from .documents import page

    snapshot = _load(_path(ctx, file, config)).snapshot
    if html:
        click.echo(page(snapshot, title=title), nl=False)
    else:
        click.echo(json.dumps(document(snapshot, title=title, version=api_version, server=server), indent=2))
