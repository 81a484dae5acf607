"""The disk tier: see FORMAT.md for every byte that it writes."""

from .store import DiskStore

__all__ = ["DiskStore"]
