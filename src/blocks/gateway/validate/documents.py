"""A schema or API description is a table, or a file of JSON, TOML or YAML beside the configuration."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from blocks.core.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from blocks.gateway.site import Site


def load(given: str | dict[str, Any], site: Site) -> dict[str, Any]:
    """The document. Raises ``ConfigError`` when the file cannot be read, or is no table."""
    if not isinstance(given, str):
        return given
    data = site.file(given)
    try:
        if given.endswith((".yaml", ".yml")):
            value = _yaml(data)
        elif given.endswith(".toml"):
            value = tomllib.loads(data.decode())
        else:
            value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{given} cannot be read: {str(error)[:300]}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{given} does not hold a table")
    return value


def _yaml(data: bytes) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("reading YAML", "yaml") from None
    try:
        return json.loads(json.dumps(yaml.safe_load(data), default=str))  # keys become text, dates stay as written
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
