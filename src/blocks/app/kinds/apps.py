"""``[apps.NAME]``: an ASGI application, or a handler written in Python, by import path."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from blocks.core.errors import ConfigError

from ..bench import Bench
from ..node import Node
from ..tables import AppTable, given


def make(name: str, table: AppTable, bench: Bench) -> Node:
    """The application."""
    if (table.asgi is None) == (table.python is None):
        raise ConfigError("an app has exactly one of asgi and python")
    if table.asgi is not None:
        from blocks.http.adapters import from_asgi

        app = from_asgi(found("asgi", table.asgi, bench), **given(table, "lifespan", "root_path", "grace"))
        app.name = name
        return Node("apps", name, app)
    own = given(table, "lifespan", "root_path", "grace")
    if own:
        raise ConfigError(f"{', '.join(own)}: only an asgi application has it")
    return Node("apps", name, found("python", table.python or "", bench))


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
