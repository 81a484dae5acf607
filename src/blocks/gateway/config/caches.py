"""A cache of a file is a factory of a Python module, by name: the gateway imports none, and ``blocks.edge:Edge`` fits."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import msgspec

from blocks.core.config.complaint import below
from blocks.core.errors import ConfigError
from blocks.http.handler import Handler

from .schema import CacheTable
from .services import python_object


class CacheOf:
    """Makes the cache before a handler. ``mark`` names its settings: a reload that changes them begins with an empty cache."""

    def __init__(self, table: CacheTable) -> None:
        self.mark = msgspec.json.encode(table).decode()
        self._settings = table.settings
        with below("python"):
            self._make: Callable[..., Handler] = python_object(table.python, "mypackage.caches:edge")
        with below("settings"):
            self._check()

    def __call__(self, inner: Handler) -> Handler:
        """The cache, with ``inner`` for its origin. Raises what it raises for settings that are wrong."""
        return self._make(inner, **self._settings)

    def _check(self) -> None:
        try:
            inspect.signature(self._make).bind(None, **self._settings)
        except TypeError as error:
            raise ConfigError(f"{error}; the cache takes {inspect.signature(self._make)}") from None
        except ValueError:  # it tells nothing of what it takes
            pass
