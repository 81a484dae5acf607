"""The command ``blocks``. A subcommand's module is imported when it is asked for, so that ``--help`` costs no block."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module

import click

import blocks

# name: (module, attribute, what it is for). The help page is made of this table alone.
_COMMANDS = {
    "run": ("blocks.app.run", "run", "Run a stack from a file: any topology of blocks in one process."),
    "balancer": ("blocks.balancer.cli", "balancer", "Balance HTTP requests over servers."),
    "broker": ("blocks.broker.cli", "broker", "A durable publish/subscribe broker and work queue, and its client."),
    "gateway": ("blocks.gateway.cli", "gateway", "One front door: routes, limits, identity."),
    "edge": ("blocks.edge.cli", "edge", "A caching edge: pull and push."),
    "check": ("blocks.app.check", "check", "Say everything that is wrong with a file: a stack or a gateway."),
    "tree": ("blocks.app.tree", "tree", "Draw who asks whom in a stack."),
    "explain": ("blocks.app.explain", "explain", "Say what a request would meet in every block of a stack."),
    "schema": ("blocks.app.schema", "schema", "Print the JSON Schema of a file, for editors."),
    "status": ("blocks.app.remote_cli", "status", "Say what a running process does, and how well."),
    "top": ("blocks.app.top_cli", "top", "Show live what a running process does."),
    "health": ("blocks.app.remote_cli", "health", "Exit with 0 when a running process is ready: a probe."),
    "drain": ("blocks.app.remote_cli", "drain", "Tell a running process to finish and leave."),
    "reload": ("blocks.app.remote_cli", "reload", "Have a running process read its configuration again."),
    "bench": ("blocks.testing.cli", "bench", "Put a URL under an open load, and report percentiles and what failed."),
    "fault": ("blocks.testing.cli", "fault", "A proxy that breaks exactly the connections it is told to."),
}


class _Lazy(click.Group):
    """A group that knows its commands' names and one-line helps, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(_COMMANDS)}."
            raise click.UsageError(f"there is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(blocks.__version__, "-V", "--version", prog_name="blocks")
def cli() -> None:
    """Networking blocks for Python teams."""


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 failure, 2 usage, 3 configuration, 4 cannot bind, 5 drain timed out."""
    sys.exit(cli(prog_name="blocks"))
