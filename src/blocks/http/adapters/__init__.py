"""Where HTTP handlers meet other frameworks: ASGI in both directions, aiohttp in one. Nothing of it is in the data path."""

from .from_asgi import from_asgi
from .to_aiohttp import to_aiohttp
from .to_asgi import to_asgi

__all__ = ["from_asgi", "to_aiohttp", "to_asgi"]
