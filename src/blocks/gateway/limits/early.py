"""The limits marked ``early``: decided before anybody's credential is verified, so they cannot know the consumer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..site import Site
from .step import build


def step(settings: Mapping[str, Any], site: Site) -> Any:
    """The step for those of a route's limits that are early, or None when none is."""
    return build(settings["limit"], site, early=True)
