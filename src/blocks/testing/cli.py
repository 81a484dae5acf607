"""``blocks bench`` and ``blocks fault``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blocks.core.errors import ConfigError

if TYPE_CHECKING:
    from .door import Door
    from .limit import Limit, Step
    from .result import Result

CONTEXT = {"max_content_width": 120, "help_option_names": ["-h", "--help"]}


class _Read(click.ParamType[Any]):
    """A value that ``blocks.core.quantities`` or a parser of ours reads; its complaint becomes click's."""

    def __init__(self, name: str, read: Any) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value)
        except (ConfigError, ValueError) as error:
            self.fail(str(error), param, ctx)


def _duration(value: Any) -> float:
    from blocks.core.quantities import seconds

    return seconds(value)


def _rate(value: Any) -> float:
    from .shapes import per_second

    return per_second(value)


def _expectation(value: str) -> tuple[str, str]:
    """``p99<20ms``, ``errors=0``, ``availability>=99.9%`` as (figure, bound)."""
    from .objectives import objective

    at = next((index for index, letter in enumerate(value) if letter in "<>="), 0)
    if not at:
        raise ConfigError(f"{value!r} is no objective; write it like 'p99<20ms' or 'errors=0'")
    figure, bound = value[:at].strip(), value[at:]
    objective(figure, bound)
    return figure, bound


def _header(value: str) -> tuple[str, str]:
    name, colon, content = value.partition(":")
    if not colon:
        raise ConfigError(f"{value!r} is no header; write it like 'Accept: text/html'")
    return name.strip(), content.strip()


# -- bench -----------------------------------------------------------------------------------------------------------


@click.command("bench", context_settings=CONTEXT)
@click.argument("url")
@click.option(
    "--rate", type=_Read("rate", _rate), help="Requests a second, begun on schedule whether or not answers come."
)
@click.option(
    "--ramp-to", type=_Read("rate", _rate), metavar="RATE", help="Rise in a straight line from --rate to this."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Closed model in place of --rate: N clients, as wrk has.",
)
@click.option(
    "--duration", type=_Read("duration", _duration), default=10.0, show_default="10s", help="How long to send."
)
@click.option("--timeout", type=_Read("duration", _duration), default=30.0, show_default="30s", help="For one request.")
@click.option("--poisson", is_flag=True, help="Draw the gaps between requests, as independent users arrive.")
@click.option("--seed", type=int, default=0, show_default=True, help="What is drawn is drawn from this.")
@click.option("--method", default="GET", show_default=True, help="The requests' method.")
@click.option(
    "-H", "--header", "headers", multiple=True, type=_Read("header", _header), help="'Name: value'; may be repeated."
)
@click.option("--body", default="", help="The requests' body; @FILE reads a file.")
@click.option(
    "--expect",
    "expected",
    multiple=True,
    type=_Read("objective", _expectation),
    help="'p99<20ms'; exit 1 when it is missed.",
)
@click.option("--find-limit", is_flag=True, help="Raise the rate, from --rate on, until an objective is missed.")
@click.option(
    "--step", type=_Read("duration", _duration), default=2.0, show_default="2s", help="Each load of --find-limit."
)
@click.option("--json", "as_json", metavar="FILE", help="Write the figures as JSON; - is standard output.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a page: FILE.html, or the chart alone: FILE.svg.",
)
def bench(**flags: Any) -> None:
    """Put URL under load and say how long answers take, from the moment each request was meant to begin.

    Exit 1 when an objective of --expect is missed.
    """
    if flags["concurrency"] is None and flags["rate"] is None:
        flags["rate"] = 100.0
    if flags["concurrency"] is not None and (flags["rate"] is not None or flags["find_limit"]):
        raise click.UsageError("--concurrency is the closed model; it goes with neither --rate nor --find-limit")
    if "://" not in flags["url"]:
        raise click.BadParameter(f"{flags['url']!r} is no URL; did you mean http://{flags['url']}?", param_hint="URL")
    try:
        with asyncio.Runner(loop_factory=_loop()) as runner:
            if flags["find_limit"]:
                _end_limit(runner.run(_limit(flags)), flags)
            else:
                _end_load(runner.run(_load(flags)), flags)
    except KeyboardInterrupt:
        raise click.Abort from None


def _loop() -> Any:
    """uvloop where it is installed: the generator must be faster than what it measures."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _request(flags: dict[str, Any]) -> dict[str, Any]:
    body = flags["body"]
    if body.startswith("@"):
        body = Path(body[1:]).read_bytes()
    return {"method": flags["method"].upper(), "headers": dict(flags["headers"]), "body": body}


async def _load(flags: dict[str, Any]) -> Result:
    from random import Random

    from .shapes import ramp
    from .traffic import load

    shape = None
    if flags["ramp_to"] is not None:
        shape = ramp(flags["rate"], flags["ramp_to"], flags["duration"])
    result = await load(
        flags["url"],
        None if shape is not None else flags["rate"],
        flags["duration"],
        shape=shape,
        concurrency=flags["concurrency"],
        poisson=Random(flags["seed"]) if flags["poisson"] else None,
        timeout=flags["timeout"],
        progress=_progress(flags["duration"]),
        **_request(flags),
    )
    _clear()
    return result


async def _limit(flags: dict[str, Any]) -> Limit:
    from .limit import find_limit

    def told(step: Step) -> None:
        outcome = "; ".join(step.missed) or "kept"
        click.echo(f"  {step.rate:8.0f}/s  p99 {step.result.quantile(0.99) * 1000:8.2f} ms  {outcome}", err=True)

    return await find_limit(
        flags["url"],
        flags["rate"],
        step=flags["step"],
        told=told,
        expect=dict(flags["expected"]) or None,
        timeout=flags["timeout"],
        **_request(flags),
    )


def _progress(duration: float) -> Any:
    """A bar on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(result: Result, passed: float) -> None:
        done = min(1.0, passed / duration)
        bar = "█" * int(done * 30)
        sys.stderr.write(f"\r  {bar:<30} {done:4.0%}  {result.requests} answers, {result.errors} errors ")
        sys.stderr.flush()

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _end_load(result: Result, flags: dict[str, Any]) -> None:
    quiet = flags["as_json"] == "-"
    if not quiet:
        click.echo(f"{flags['url']}  {result.label}\n{result.table()}")
    _write(result, flags)
    if flags["expected"]:
        try:
            result.expect(**dict(flags["expected"]))
        except AssertionError as missed:
            click.echo(str(missed).partition("\n  requests")[0], err=True)
            sys.exit(1)


def _end_limit(limit: Limit, flags: dict[str, Any]) -> None:
    if flags["as_json"] != "-":
        click.echo(limit.table())
        broke = "it never gave way" if limit.broke is None else f"it gave way at {limit.broke:.0f}/s"
        click.echo(f"{flags['url']} keeps its objectives up to {limit.rate:.0f}/s; {broke}")
    _write(limit, flags)


def _write(result: Result | Limit, flags: dict[str, Any]) -> None:
    if flags["as_json"]:
        text = json.dumps({"url": flags["url"], **result.as_dict()}, indent=2)
        if flags["as_json"] == "-":
            click.echo(text)
        else:
            Path(flags["as_json"]).write_text(text + "\n", encoding="utf-8")
    if flags["report"]:
        from .report import page, svg

        chart_only = flags["report"].endswith(".svg")
        Path(flags["report"]).write_text(svg(result) if chart_only else page(result, flags["url"]), encoding="utf-8")


# -- fault -----------------------------------------------------------------------------------------------------------


@click.command("fault", context_settings=CONTEXT)
@click.argument("target")
@click.option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Where clients connect.")
@click.option(
    "--fault",
    "lines",
    multiple=True,
    metavar="RULE",
    help="'next 2: reset'; may be repeated; the first that fits strikes.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What is drawn is drawn from this.")
@click.option(
    "--control",
    metavar="HOST:PORT",
    help="An HTTP listener to arm rules (POST /arm) and see hits (GET /faults) while it runs.",
)
def fault(target: str, listen: str, lines: tuple[str, ...], seed: int, control: str | None) -> None:
    """Stand between clients and TARGET, and fail as told: http://HOST:PORT, or HOST:PORT for any TCP protocol.

    A rule is WHICH: WHAT. WHICH: next N, every N, after N, chance 1%, method M, path /prefix; "connections" first for a rule that is
    looked at when a connection is accepted (the only kind that TCP has). WHAT: reset, close, hang, half-open, delay 200ms, reorder 1 1s,
    trickle 1 100ms, bandwidth 10kB/s, cut-head, cut-body 100, corrupt-head, corrupt-body, duplicate, status 503.
    Prints one JSON line when it is ready.
    """
    with asyncio.Runner() as runner:
        try:
            runner.run(_stand_between(target, listen, lines, seed, control))
        except ConfigError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(3)
        except OSError as error:
            click.echo(f"Error: cannot listen: {error}", err=True)
            sys.exit(4)


async def _stand_between(target: str, listen: str, lines: tuple[str, ...], seed: int, control: str | None) -> None:
    from blocks.http.server import Server

    from .faultline import arm

    door = _door(target, seed)
    armed = [(line, arm(door.fault, line)) for line in lines]
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await door.start(listen)
    try:
        ready: dict[str, Any] = {
            "event": "ready",
            "block": "fault",
            "listen": ["{}:{}".format(*door.address)],
            "target": target,
        }
        if control is None:
            click.echo(json.dumps(ready))
            await stopping.wait()
        else:
            from .control import Control

            async with Server(Control(door, armed), control) as server:
                click.echo(json.dumps({**ready, "control": server.addresses}))
                await stopping.wait()
    finally:
        await door.stop()


def _door(target: str, seed: int) -> Door:
    """An HTTP proxy for a URL, a TCP one for HOST:PORT."""
    from random import Random

    from blocks.core.clock import SYSTEM
    from blocks.http.server import parse_address
    from blocks.http.upstream import Upstream

    if "://" in target:
        from .origin import Origin

        return Origin(Upstream(target), name="fault", clock=SYSTEM, random=Random(seed), keep_bodies=False)
    from .link import Link

    address = parse_address(target)
    if isinstance(address, str):
        raise ConfigError(f"{target!r} is a Unix socket; give HOST:PORT or http://HOST:PORT")
    return Link(*address, name="fault", random=Random(seed))
