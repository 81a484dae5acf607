"""What a service gets may differ from what the client sent, and the other way round: headers, path, query and JSON bodies.

``step`` makes a route's ``transform`` step. Templates reach facts of the request and nothing else (see ``template``).
"""

from __future__ import annotations

from .step import Settings, Transform, step
from .template import Template, View

__all__ = ["Settings", "Template", "Transform", "View", "step"]
