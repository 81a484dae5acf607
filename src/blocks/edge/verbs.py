"""What the commands that speak to running edges do."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from blocks.core.errors import ConfigError

from .push.client import Fleet
from .push.rules import Rule, rules_of
from .push.scan import Terms, scan, size_of

Progress = Callable[[int], None]


def _fleet(urls: Sequence[str], token_file: str | None, token: str | None) -> Fleet:
    if token_file is not None:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    return Fleet(urls, token)


def _bar(label: str, length: int) -> Any:
    """A progress bar on standard error: standard output is for results."""
    return click.progressbar(length=length, label=label, file=sys.stderr, width=30)


async def push(
    *, folder: str, release: str, site: str, prefix: str, hosts: tuple[str, ...], miss: Literal["404", "pull"], fallback: str,
    rules: str | None, activating: bool, urls: Sequence[str], token_file: str | None, token: str | None,
) -> None:  # fmt: skip
    """Hash, ask what is missing, send that, and (with ``activating``) switch."""
    terms = Terms(site, prefix if prefix.endswith("/") else prefix + "/", hosts, miss, fallback, _rules(rules))
    with _bar("Reading", size_of(folder)) as bar:
        scanned = scan(folder, release, terms, bar.update)
    sizes = scanned.manifest.objects
    async with _fleet(urls, token_file, token) as fleet:
        missing = await fleet.stage(scanned)
        total = sum(sizes[name] - offset for lacks in missing for name, offset in lacks.items())
        with _bar("Sending", total) as bar:
            await fleet.send(scanned, missing, bar.update)
        objects = sum(len(lacks) for lacks in missing)
        click.echo(
            f"{site}/{release}: {len(scanned.manifest.files)} files, {_bytes(scanned.manifest.size)}; "
            f"sent {objects} objects, {_bytes(total)}, to {len(urls)} {'edge' if len(urls) == 1 else 'edges'}"
        )
        if activating:
            await fleet.activate(site, release)
            click.echo(f"{site}: {release} is active on {', '.join(urls)}")


async def activate(*, release: str, site: str, urls: Sequence[str], token_file: str | None, token: str | None) -> None:
    """Switch all or none."""
    async with _fleet(urls, token_file, token) as fleet:
        await fleet.activate(site, release)
    click.echo(f"{site}: {release} is active on {', '.join(urls)}")


async def rollback(
    *, release: str | None, site: str, urls: Sequence[str], token_file: str | None, token: str | None
) -> None:
    """Switch all back or none."""
    async with _fleet(urls, token_file, token) as fleet:
        back = await fleet.rollback(site, release)
    click.echo(f"{site}: back to {back} on {', '.join(urls)}")


async def releases(*, as_json: bool, urls: Sequence[str], token_file: str | None, token: str | None) -> None:
    """List."""
    async with _fleet(urls, token_file, token) as fleet:
        listings = await fleet.releases()
    if as_json:
        click.echo(json.dumps(dict(zip(urls, listings, strict=True))))
        return
    for url, listing in zip(urls, listings, strict=True):
        click.echo(f"{url}  {_bytes(listing['bytes'])} of {_bytes(listing['capacity'])}")
        for site, found in listing["sites"].items():
            for row in found["releases"]:
                size, pushed = _bytes(row["bytes"]), _since(row["pushed"])
                line = (
                    f"{_mark(found, row)} {site}/{row['release']}  {row['files']} files  {size}  {pushed}{_lack(row)}"
                )
                click.echo("  " + line)


async def gc(*, keep: int, urls: Sequence[str], token_file: str | None, token: str | None) -> None:
    """Clean up."""
    async with _fleet(urls, token_file, token) as fleet:
        answers = await fleet.gc(keep)
    for url, answer in zip(urls, answers, strict=True):
        click.echo(f"{url}: dropped {', '.join(answer['dropped']) or 'nothing'}; freed {_bytes(answer['freed'])}")


async def purge(
    *, url: str | None, prefix: str | None, host: str | None, tag: str | None, soft: bool,
    urls: Sequence[str], token_file: str | None, token: str | None,
) -> None:  # fmt: skip
    """Purge everywhere; every edge is asked, also when one fails."""
    body: dict[str, Any] = {
        kind: value for kind, value in (("url", url), ("prefix", prefix), ("host", host), ("tag", tag)) if value
    }
    async with _fleet(urls, token_file, token) as fleet:
        answers = await fleet.each("POST", "/v1/edge/purge", json={**body, "soft": soft})
    for point, answer in zip(urls, answers, strict=True):
        click.echo(
            f"{point}: purged {sum(worker['purged'] for worker in answer)} in memory; what is on disk goes when it is asked for"
        )


async def stats(*, as_json: bool, urls: Sequence[str], token_file: str | None, token: str | None) -> None:
    """Show numbers."""
    async with _fleet(urls, token_file, token) as fleet:
        answers = await fleet.each("GET", "/v1/edge/stats")
    if as_json:
        click.echo(json.dumps(dict(zip(urls, answers, strict=True))))
        return
    for url, workers in zip(urls, answers, strict=True):
        for number, worker in enumerate(workers):
            click.echo(url if len(workers) == 1 else f"{url} worker {number}")
            _table(worker, 2)


def _table(values: dict[str, Any], indent: int) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            click.echo(f"{' ' * indent}{name}")
            _table(value, indent + 2)
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            click.echo(f"{' ' * indent}{name:<24} {shown}")


def _rules(path: str | None) -> tuple[Rule, ...]:
    if path is None:
        return ()
    with open(path, "rb") as file:
        try:
            return tuple(rules_of(tomllib.load(file)))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _mark(site: dict[str, Any], row: dict[str, Any]) -> str:
    return "*" if row["release"] == site["active"] else "-" if row["release"] == site["previous"] else " "


def _lack(row: dict[str, Any]) -> str:
    return f"  INCOMPLETE: {row['missing']} objects are missing" if row["missing"] else ""


def _since(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


VERBS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "push": push, "activate": activate, "rollback": rollback, "releases": releases, "gc": gc, "purge": purge, "stats": stats,
}  # fmt: skip
