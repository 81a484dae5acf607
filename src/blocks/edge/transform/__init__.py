"""Transforms: another form of a stored body, made once for each entry."""

from .compression import Compression
from .minification import Minification

__all__ = ["Compression", "Minification"]
