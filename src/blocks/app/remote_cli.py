"""``blocks status``, ``health``, ``drain`` and ``reload``: what an operator asks a running process, by its admin API.

Exit codes: 0 fine, 1 not reached, not ready or refused, 2 usage, 3 a configuration was refused, 5 still there after ``drain --wait``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import click

from blocks.core.errors import ConfigError

from .remote import Answer, Remote, Unreachable, find, read_token

_WORDS = {"on-trial": "on trial: a share of the requests tries it, and blocks status will say what came of it"}
FAILURE, CONFIGURATION, DRAIN_TIMED_OUT = 1, 3, 5
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


def _timeout(ctx: click.Context, param: click.Parameter, value: Any) -> float:
    from blocks.core.quantities import seconds

    try:
        return seconds(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def remote(wait: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that say which process, and call it with ``remote``; ``wait`` is how long an answer may take."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def connected(
            admin: str | None,
            ports_file: str | None,
            token_file: str | None,
            token: str | None,
            timeout: float,
            **more: Any,
        ) -> Any:
            try:
                found = Remote(find(admin, ports_file), token=read_token(token_file, token), timeout=timeout)
                return command(found, **more)
            except ConfigError as error:
                raise click.UsageError(str(error)) from None
            except Unreachable as error:
                fail(str(error))

        wrapped: Callable[..., Any] = connected
        wrapped.__doc__ = command.__doc__
        for option in reversed(_OPTIONS):
            wrapped = option(wrapped)
        return click.option(
            "--timeout", default=wait, show_default=True, callback=_timeout, metavar="DURATION", help="For the answer."
        )(wrapped)

    return decorate


_OPTIONS = [
    click.option(
        "--admin", envvar="BLOCKS_ADMIN", show_envvar=True, metavar="URL",
        help="The process's admin API: http://HOST:PORT or unix:PATH.  [default: http://127.0.0.1:9900]",
    ),
    click.option(
        "--ports-file", envvar="BLOCKS_PORTS_FILE", show_envvar=True, metavar="FILE",
        help="Find it in the ports file that the process wrote.",
    ),
    click.option(
        "--token-file", envvar="BLOCKS_ADMIN_TOKEN_FILE", show_envvar=True, metavar="FILE",
        help="File with its bearer token.",
    ),
    click.option("--token", envvar="BLOCKS_ADMIN_TOKEN", hidden=True),
]  # fmt: skip

_json = click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of text.")


@click.command("health", context_settings=HELP)
@click.option("--verbose", is_flag=True, help="Say how well each part is.")
@click.option(
    "--live", is_flag=True, help="Ask only whether it answers: a reason to restart it, where not ready is none."
)
@remote("2s")
def health(remote: Remote, verbose: bool, live: bool) -> None:
    """Exit with 0 when the process is ready, with 1 when it is not or cannot be reached: a probe for Docker and Kubernetes."""
    answer = remote.ask("GET", "/livez" if live else "/readyz?verbose" if verbose else "/readyz")
    allowed(answer)
    if answer.status not in (200, 503) or not isinstance(answer.body, dict) or "status" not in answer.body:
        fail(f"{remote.url} is no admin API: it answers {answer.status}")
    click.echo(answer.body["status"])
    if verbose and not live:
        for _, body in answer.each():
            for part in body.get("parts", ()):
                click.echo(f"  {'  ' * part['depth']}{part['part']}  {part['health']}")
    sys.exit(0 if answer.status == 200 else FAILURE)


@click.command("status", context_settings=HELP)
@_json
@remote("10s")
def status(remote: Remote, as_json: bool) -> None:
    """Say what runs, how well, where it listens, since when, and which configuration is in force."""
    from .remote_report import lines, summary

    answer = remote.ask("GET", "/v1/status")
    allowed(answer)
    bodies = [body for code, body in answer.each() if code == 200 and isinstance(body, dict)]
    if not bodies:
        fail(f"{remote.url} answers {answer.status} to /v1/status: {_said(answer)}")
    told = summary(bodies)
    if as_json:
        _print_json(told)
    else:
        click.echo("\n".join(lines(told)))


@click.command("drain", context_settings=HELP)
@click.option(
    "--wait", is_flag=True, help="Return when it has gone; exit with 5 when it is still there after --timeout."
)
@remote("60s")
def drain(remote: Remote, wait: bool) -> None:
    """Tell the process to leave: not ready, no new connections, what is under way is finished. As SIGTERM."""
    begun = time.monotonic()
    answer = remote.ask("POST", "/v1/drain")
    allowed(answer)
    if answer.status != 202:
        fail(f"{remote.url} answers {answer.status} to /v1/drain: {_said(answer)}")
    click.echo("draining")
    while wait:
        time.sleep(0.1)
        try:
            remote.ask("GET", "/livez")
        except Unreachable:
            click.echo("gone")
            return
        if time.monotonic() - begun > remote.timeout:
            click.echo(f"blocks: it is still there after {remote.timeout:g}s", err=True)
            sys.exit(DRAIN_TIMED_OUT)


@click.command("reload", context_settings=HELP)
@_json
@remote("60s")
def reload(remote: Remote, as_json: bool) -> None:
    """Have the configuration, certificates and logs read again. Exit with 3, and say what is wrong, when the old ones stay in force."""
    answer = remote.ask("POST", "/v1/reload")
    allowed(answer)
    each = answer.each()
    if as_json:
        _print_json(answer.body)
    refused = [body for code, body in each if code == 422]
    if refused:
        if not as_json:
            for text in dict.fromkeys(str(body.get("report") or body.get("error")) for body in refused):
                click.echo(text, err=True)
            click.echo("blocks: the old configuration stays in force", err=True)
        sys.exit(CONFIGURATION)
    if any(code != 200 for code, _ in each):
        fail(f"{remote.url} answers {answer.status} to /v1/reload: {_said(answer)}")
    if not as_json:
        body = each[0][1]
        digest = f", digest {body['digest']}" if body.get("digest") else ""
        click.echo(f"{_WORDS.get(body.get('status'), 'reloaded')}{digest}")


def allowed(answer: Answer) -> None:
    """Leave with 1, saying why, when the API does not let us in."""
    if answer.status in (401, 403, 421):
        said = {401: "it asks for another token: give --token-file", 421: "it takes requests from its own machine only"}
        fail(f"the admin API refuses: {said.get(answer.status, _said(answer))}")


def _said(answer: Answer) -> str:
    body = answer.body
    return str(body.get("error", body) if isinstance(body, dict) else body)[:500].strip()


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2))


def fail(words: str) -> NoReturn:
    """Say in a line why a command failed, and leave with 1."""
    click.echo(f"blocks: {words}", err=True)
    sys.exit(FAILURE)
