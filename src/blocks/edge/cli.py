"""``blocks edge``: run a caching edge, or speak to one: push, switch, purge, look."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click

from blocks.core.errors import ConfigError
from blocks.http.options import DURATION, SIZE, Serving, serving_options

_CODINGS = ("br", "zstd", "gzip")
_KINDS = ("js", "css", "html", "json")
_FILE = click.Path(exists=True, dir_okay=False)


def _origins(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Every URL is looked at, so that all mistakes are said in one run."""
    from blocks.http.upstream import Upstream

    wrong = []
    for value in values:
        try:
            Upstream(value)
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise click.BadParameter("; ".join(wrong), context, param)
    return values


def _share(context: click.Context, param: click.Parameter, value: str) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%", value) or re.fullmatch(r"(0(?:\.\d+)?)", value)
    if found is None or float(found[1]) > 90:
        raise click.BadParameter(f"{value!r} is not a share from 0% to 90%; write it like 10%", context, param)
    return value


def _networks(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    import ipaddress

    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is no address or network; write 127.0.0.1 or 10.0.0.0/8", context, param
            ) from None
    return values


def _pseudonym(context: click.Context, param: click.Parameter, value: str) -> str | None:
    if value == "off":
        return None
    if not re.fullmatch(r"[0-9A-Za-z._-]+", value):
        raise click.BadParameter(f"{value!r} is no name for Via; write letters, digits, . _ or -", context, param)
    return value


def _list_of(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]:
    """A callback for a list like ``br,gzip``; ``all`` is everything."""

    def convert(context: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
        if not value or value == "off":
            return ()
        names = known if value == "all" else tuple(name.strip() for name in value.split(","))
        strange = [name for name in names if name not in known]
        if strange:
            raise click.BadParameter(f"{strange[0]!r} is not one of {', '.join(known)}, or all", context, param)
        return names

    return convert


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    callback=_origins,
    help="Where to fetch from; further ones are for fail-over.",
)
@click.option(
    "--memory",
    type=SIZE,
    default=256 * 1024**2,
    show_default="256MiB",
    help="For what is held in memory, for each worker.",
)
@click.option(
    "--store",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Keep a second tier and pushed releases in this folder.",
)
@click.option(
    "--store-size",
    type=SIZE,
    default=4 * 1024**3,
    show_default="4GiB",
    help="For the second tier, all workers together.",
)
@click.option("--push-size", type=SIZE, default=10 * 1024**3, show_default="10GiB", help="For pushed releases.")
@click.option(
    "--profile",
    type=click.Choice(["safe", "rfc"]),
    default="safe",
    show_default=True,
    help="rfc: store whatever the standard allows.",
)
@click.option(
    "--default-ttl",
    type=DURATION,
    default=0.0,
    show_default="0",
    help="For responses that do not say how long they are fresh.",
)
@click.option(
    "--ttl-jitter",
    metavar="SHARE",
    default="10%",
    show_default=True,
    callback=_share,
    help="Shorten lifetimes by up to so much.",
)
@click.option(
    "--grace", type=DURATION, default=3600.0, show_default="1h", help="How long stale responses bridge a dead origin."
)
@click.option(
    "--allow-purge",
    multiple=True,
    metavar="NETWORK",
    callback=_networks,
    help="Who may use the method PURGE; nobody by default.",
)
@click.option(
    "--compress",
    metavar="CODINGS",
    callback=_list_of(_CODINGS),
    help="Compress what is stored, once: br,zstd,gzip or all.",
)
@click.option(
    "--minify", metavar="KINDS", callback=_list_of(_KINDS), help="Minify what is stored, once: js,css,html,json or all."
)
@click.option(
    "--range-fill",
    type=SIZE,
    default=1024**3,
    show_default="1GiB",
    help="A range of a large object not larger than this makes the edge fetch all of it into the second tier.",
)
@click.option(
    "--trusted-proxy",
    "trusted",
    multiple=True,
    metavar="NETWORK",
    callback=_networks,
    help="Believe X-Forwarded-For from here; may be repeated.",
)
@click.option(
    "--forwarded/--no-forwarded",
    default=True,
    show_default=True,
    help="Tell origins who the client is (X-Forwarded-*, Forwarded); of what is stored, the one who asked first.",
)
@click.option(
    "--via",
    metavar="NAME",
    default="blocks",
    show_default=True,
    callback=_pseudonym,
    help="This edge's name in Via, which origins get; off for none.",
)
@click.option(
    "--upstream-timeout", type=DURATION, default=60.0, show_default="60s", help="Longest silence of an origin."
)
@click.option("--connect-timeout", type=DURATION, default=5.0, show_default="5s", help="For connecting to an origin.")
@serving_options("127.0.0.1:8081")
@click.pass_context
def edge(context: click.Context, /, serving: Serving, **flags: Any) -> None:
    """Cache what an origin answers, and serve what was pushed.

    Prints one JSON line when it is ready. With a command, speaks to the admin API of running edges.
    """
    if context.invoked_subcommand is not None:
        return
    if not flags["origins"]:
        raise click.UsageError("--origin URL says where to fetch from, like --origin http://127.0.0.1:9000", context)
    from blocks.http.process import run_process

    run_process("edge", lambda: build(flags, serving.workers), serving, admin=_routes)


def _routes(app: Any, handler: Any) -> None:
    from .admin import routes  # aiohttp's server costs 0.3 s, which an edge without an admin API does not pay

    routes(app, handler)


def build(flags: dict[str, Any], workers: int) -> Any:
    """The edge of those flags, for one of so many workers. Raises ``ConfigError``, ``MissingExtra``."""
    from blocks.http.filters.forwarded import Forwarded
    from blocks.http.handler import chain
    from blocks.http.upstream import Upstream

    from .edge import Edge

    settings: dict[str, Any] = {
        name: flags[name]
        for name in ("memory", "profile", "default_ttl", "ttl_jitter", "grace", "allow_purge", "via", "range_fill")
    }
    if flags["compress"] or flags["minify"]:
        settings["transforms"] = _transforms(flags)
    if flags["store"]:
        import os

        from .push.releases import Releases
        from .store.disk import DiskStore

        settings["store"] = DiskStore(flags["store"], flags["store_size"] // workers, shards=workers)
        settings["releases"] = Releases(
            os.path.join(flags["store"], "push"), flags["push_size"], compression=_available()
        )
    origins: list[Any] = [
        Upstream(url, timeout=flags["upstream_timeout"], connect_timeout=flags["connect_timeout"])
        for url in flags["origins"]
    ]
    if flags[
        "forwarded"
    ]:  # behind the edge: hits pay nothing, and what clients say about themselves is dropped by then
        told = Forwarded(flags["trusted"], via=None)
        origins = [chain(told, to=origin) for origin in origins]
    return Edge(origins, **settings)


def _transforms(flags: dict[str, Any]) -> list[Any]:
    from .transform import Compression, Minification

    transforms: list[Any] = [Minification(flags["minify"])] if flags["minify"] else []
    return [*transforms, Compression(flags["compress"])] if flags["compress"] else transforms


def _available() -> Any:
    """Compression of pushed files in every coding that this installation has."""
    from importlib.util import find_spec

    from .transform import Compression

    libraries = {"br": "brotli", "zstd": "zstandard", "gzip": "zlib"}
    return Compression([coding for coding in _CODINGS if find_spec(libraries[coding]) is not None])


# -- speaking to running edges


def _admin_urls(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            near = f"; did you mean http://{value}?" if "://" not in value else ""
            raise click.BadParameter(f"{value!r} is not the URL of an edge's admin API{near}", context, param)
    if len(set(values)) != len(values):
        raise click.BadParameter("the same edge is named twice", context, param)
    return values


def _remote(command: Any) -> Any:
    """The options of every command that speaks to running edges."""
    to: dict[str, Any] = {"multiple": True, "required": True, "metavar": "URL", "callback": _admin_urls}
    for option in (
        click.option("--to", "urls", help="An edge's admin API; once for each edge.", **to),
        click.option("--token-file", type=_FILE, help="File with the admin API's token."),
        click.option("--token", envvar="BLOCKS_EDGE_TOKEN", show_envvar=True, help="The token; others see it in ps."),
    ):
        command = option(command)
    return command


_site = click.option("--site", default="default", show_default=True, help="Which of several sites on the same edges.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@edge.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--release",
    required=True,
    metavar="NAME",
    help="What to call it: a version, a commit. It never changes afterwards.",
)
@_site
@click.option("--prefix", default="/", show_default=True, help="Where DIR begins in the site's URLs.")
@click.option("--host", "hosts", multiple=True, help="Answer for this Host only; may be repeated.")
@click.option(
    "--miss",
    type=click.Choice(["404", "pull"]),
    default="404",
    show_default=True,
    help="What a path under the prefix that was not pushed is.",
)
@click.option(
    "--fallback", default="", metavar="PATH", help="Answer misses with this page (an application's /index.html)."
)
@click.option("--rules", type=click.Path(exists=True, dir_okay=False), help="TOML file of fields by pattern.")
@click.option("--activate", "activating", is_flag=True, help="Switch to it when it is everywhere.")
@_remote
def push(**flags: Any) -> None:
    """Send a folder to every edge as a release; only what an edge lacks travels."""
    _run("push", flags)


@edge.command()
@click.argument("name", metavar="[RELEASE]", required=False)
@click.option("--release", metavar="NAME", help="The same as the argument.")
@_site
@_remote
def activate(name: str | None, release: str | None, **flags: Any) -> None:
    """Switch every edge to a pushed RELEASE, or none."""
    if (name is None) == (release is None):
        raise click.UsageError("name one release, as in: blocks edge activate v42 --to URL")
    _run("activate", {**flags, "release": name or release})


@edge.command()
@click.option("--release", metavar="NAME", help="Go to this one instead of the one before.")
@_site
@_remote
def rollback(**flags: Any) -> None:
    """Switch every edge back to the release that was active before."""
    _run("rollback", flags)


@edge.command()
@_json
@_remote
def releases(**flags: Any) -> None:
    """List what each edge has, what is active, what is incomplete."""
    _run("releases", flags)


@edge.command()
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Newest releases of a site to keep besides the active and the previous one.",
)
@_remote
def gc(**flags: Any) -> None:
    """Drop old releases and what nothing needs any more."""
    _run("gc", flags)


@edge.command()
@click.option("--url", help="http://host/path, or /path on every host.")
@click.option("--prefix", help="Everything below it.")
@click.option("--host", help="Everything of a host.")
@click.option("--tag", help="Everything with this tag (Surrogate-Key, Cache-Tag, Cache-Groups).")
@click.option("--soft", is_flag=True, help="Make stale instead of taking out: it still serves while it is validated.")
@_remote
def purge(**flags: Any) -> None:
    """Take something out of every edge's cache, for good."""
    given = [kind for kind in ("url", "prefix", "host", "tag") if flags[kind]]
    if len(given) != 1:
        raise click.UsageError("purge what? give exactly one of --url, --prefix, --host, --tag")
    _run("purge", flags)


@edge.command()
@_json
@_remote
def stats(**flags: Any) -> None:
    """Show hit ratio, fills, evictions, sizes of each edge."""
    _run("stats", flags)


def _run(name: str, flags: dict[str, Any]) -> None:
    """Run a verb; what is wrong is one line, exit 1 (2 for what was asked wrongly)."""
    import asyncio

    from . import verbs
    from .push.client import NotSwitched, PointFailed

    try:
        asyncio.run(verbs.VERBS[name](**flags))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except (NotSwitched, PointFailed) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or ''}: {error.strerror or error}") from None
