"""What ``blocks broker``'s commands do once their options are read."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import click

from blocks.core.errors import BlocksError, ConfigError

from .client import Client, connect
from .message import Message, Receipt
from .row import row_of

Verb = Callable[[Client, dict[str, Any]], Awaitable[None]]


def run(verb: Verb, options: dict[str, Any]) -> None:
    """Do ``verb`` with a client for the broker at the options' ``url``; exits 1 on failure and 3 on a wrong setting."""

    async def work() -> None:
        async with connect(options["url"], token=options["token"], tls=options["tls_ca"], give_up_after=10.0) as client:
            await verb(client, options)

    try:
        asyncio.run(work())
    except ConfigError as error:
        _fail(3, str(error))
    except (BlocksError, OSError) as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _fail(code: int, message: str) -> None:
    click.echo(f"blocks broker: {message}", err=True)
    sys.exit(code)


async def publish(client: Client, options: dict[str, Any]) -> None:
    """One message, or one for each line of stdin."""
    key = options["key"].encode() if options["key"] is not None else None
    common = {"ttl": options["ttl"], "delay": options["delay"]}
    if options["lines"]:
        await _publish_lines(client, options, common, key)
        return
    payload = options["payload"].encode() if options["payload"] is not None else sys.stdin.buffer.read()
    receipt = await client.publish(
        options["topic"], payload, key=key, headers=options["headers"], id=options["ident"], **common
    )
    _print_receipt(receipt, options["as_json"])


async def _publish_lines(client: Client, options: dict[str, Any], common: dict[str, Any], key: bytes | None) -> None:
    if options["ident"] is not None:
        raise click.UsageError("--id names one message, --lines publishes many")
    count = 0
    while lines := sys.stdin.buffer.readlines(256 * 1024):
        keys = [key] * len(lines) if key is not None else None
        payloads = [line.rstrip(b"\n") for line in lines]
        await client.publish_many(options["topic"], payloads, keys=keys, headers=options["headers"], **common)
        count += len(lines)
        if sys.stderr.isatty():
            click.echo(f"\r{count:,} messages", nl=False, err=True)
    if options["as_json"]:
        click.echo(json.dumps({"topic": options["topic"], "messages": count}))
    else:
        click.echo(f"{count} messages acknowledged")


def _print_receipt(receipt: Receipt, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(receipt._asdict()))
    else:
        click.echo(f"{receipt.topic}@{receipt.offset} {receipt.durability}{' duplicate' if receipt.duplicate else ''}")


async def tail(client: Client, options: dict[str, Any]) -> None:
    """Messages as they come; in a group they are acked once printed."""
    group, left = options["group"], options["count"]
    subscription = client.subscribe(
        options["pattern"], group=group, start=options["start"], mode="consume" if group else "browse"
    )
    async with subscription as messages:
        while left is None or left > 0:
            try:
                async with asyncio.timeout(options["timeout"]):
                    message = await anext(messages)
            except TimeoutError:
                return
            _print_message(message, options["as_json"])
            await message.ack(wait=left == 1)
            left = left - 1 if left is not None else None


def _print_message(message: Message, as_json: bool) -> None:
    if not as_json:
        sys.stdout.buffer.write(message.payload + b"\n")
        sys.stdout.buffer.flush()
        return
    click.echo(json.dumps(row_of(message)))
    sys.stdout.flush()


async def topics(client: Client, options: dict[str, Any]) -> None:
    """The topics that a pattern matches."""
    _print_rows(await client.topics(options["pattern"]), options["as_json"])


async def groups(client: Client, options: dict[str, Any]) -> None:
    """The groups."""
    _print_rows(await client.groups(), options["as_json"])


async def lag(client: Client, options: dict[str, Any]) -> None:
    """What each group has before it."""
    _print_rows(await client.lag(options["group"]), options["as_json"])


async def redrive(client: Client, options: dict[str, Any]) -> None:
    """Dead letters back to where they came from."""
    count = await client.redrive(options["group"], options["limit"])
    click.echo(
        json.dumps({"group": options["group"], "redriven": count})
        if options["as_json"]
        else f"{count} messages redriven"
    )


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    if not rows:
        click.echo("none", err=True)
        return
    names = list(rows[0])
    cells = [names] + [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    for line in cells:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "-" if value is None else str(value)


def inspect(data: str, as_json: bool, *, repairing: bool) -> int:
    """Verify or repair the log in ``data``; gives the exit code, 0 only if all is well (or was made so)."""
    from .log import verify as verification

    tell, finish = _progress("repair" if repairing else "verify")
    try:
        work = verification.repair if repairing else verification.verify
        report = work(data, progress=tell)
    except (BlocksError, OSError) as error:
        finish()
        click.echo(f"blocks broker: {error}", err=True)
        return 3 if isinstance(error, ConfigError) else 1
    finish()
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        for problem in report.problems:
            click.echo(str(problem))
        click.echo("the log is whole" if report.ok else f"{len(report.problems)} problems")
    return 0 if report.ok or repairing else 1


def _progress(what: str) -> tuple[Callable[..., None], Callable[[], None]]:
    """A callback ``(done, total)`` that draws on a terminal's stderr, and what ends the line."""
    if not sys.stderr.isatty():
        return lambda *_: None, lambda: None

    def tell(done: int, total: int) -> None:
        share = done / total if total else 1.0
        click.echo(f"\r{what} [{'#' * int(share * 40):<40}] {share:4.0%}", nl=False, err=True)

    return tell, lambda: click.echo(err=True)


async def bench(client: Client, options: dict[str, Any]) -> None:
    """Publish, publish one by one, and drain, in this one process."""
    count, window, payload = options["messages"], options["window"], b"x" * options["payload_size"]
    topic = f"bench.{time.time_ns():x}"
    async with _timed("publish", count, options["as_json"]):
        for start in range(0, count, window):
            await client.publish_many(topic, [payload] * min(window, count - start))
    workers = min(window, count)

    async def publish_some(share: int) -> None:
        for _ in range(share):
            await client.publish(topic + ".single", payload)

    async with _timed("publish-single", count // workers * workers, options["as_json"]):
        await asyncio.gather(*(publish_some(count // workers) for _ in range(workers)))
    async with (
        client.subscribe(topic, group=topic, start="earliest", prefetch=4000) as messages,
        _timed("drain-ack", count, options["as_json"]),
    ):
        for _ in range(count):
            message = await anext(messages)
            await message.ack()
    for name in (topic, topic + ".single"):
        await client.ask("delete-topic", topic=name)


@asynccontextmanager
async def _timed(what: str, count: int, as_json: bool) -> AsyncIterator[None]:
    start = time.perf_counter()
    yield
    took = time.perf_counter() - start
    if as_json:
        click.echo(json.dumps({"bench": what, "messages": count, "seconds": took, "per_second": count / took}))
    else:
        click.echo(f"{what:<15} {count / took:>12,.0f}/s   {count:,} messages in {took:.3f} s")
