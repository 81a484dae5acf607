"""``[apps.NAME]``: an ASGI application, or a handler written in Python, by import path."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import Any

from blocks.core.errors import ConfigError

from ..bench import Bench, nobody
from ..node import Node
from ..tables import AppTable, given


def make(name: str, table: AppTable, bench: Bench) -> Node:
    """The application."""
    if (table.asgi is None) == (table.python is None):
        raise ConfigError("an app has exactly one of asgi and python")
    if table.asgi is not None:
        from blocks.http.adapters import from_asgi

        app = from_asgi(_thing("asgi", table.asgi, table, bench), **given(table, "lifespan", "root_path", "grace"))
        app.name = name
        return Node("apps", name, app)
    own = given(table, "lifespan", "root_path", "grace")
    if own:
        raise ConfigError(f"{', '.join(own)}: only an asgi application has it")
    thing = _thing("python", table.python or "", table, bench)
    return Node("apps", name, thing, front=thing if callable(thing) else nobody, roots=(thing,))


def _thing(key: str, words: str, table: AppTable, bench: Bench) -> Any:
    """What the import path leads to; with ``needs`` it is called with those parts, by their names, and what it returns counts."""
    thing = found(key, words, bench)
    if not table.needs:
        return thing
    known = len(bench.complaints)
    parts: dict[str, Any] = {}
    for place, name in enumerate(table.needs):
        if name.isidentifier():
            parts[name] = bench.part(name, "needs", place)
        else:
            bench.complain(("needs", place), f"{name!r} cannot be the name of a parameter in Python")
    if len(bench.complaints) > known or None in parts.values():
        return nobody  # what is wrong is told; a broker that could not be made has been told of itself
    try:
        made = thing(**parts)
    except Exception as error:  # somebody else's code
        raise ConfigError(
            f"{key} = {words!r} fails when it is called with needs: {type(error).__name__}: {error}"
        ) from error
    if inspect.iscoroutine(made):
        made.close()
        raise ConfigError(
            f"{key} = {words!r} is async: with needs it must be a plain function that returns the application"
        )
    if not callable(made) and (key == "asgi" or not hasattr(made, "__aenter__")):
        more = "" if key == "asgi" else " nor an async context manager"
        raise ConfigError(f"{key} = {words!r} returns a {type(made).__name__}, which is not callable{more}")
    return made


def found(key: str, words: str, bench: Bench) -> Any:
    """The object of ``package.module:attribute``; the module may stand beside the stack's file. Raises ``ConfigError``: what is wrong."""
    module, colon, name = words.partition(":")
    if not colon or not module or not name:
        raise ConfigError(f"{key} = {words!r} is not understood; write it like mypackage.module:app")
    folder = str(bench.path("").resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        thing: Any = import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except Exception as error:  # a module may fail in any way while it is imported
        raise ConfigError(f"{key} = {words!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(thing):
        raise ConfigError(f"{key} = {words!r} is not callable")
    return thing
