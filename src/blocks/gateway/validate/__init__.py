"""What a request and an answer must be: by JSON Schema, or by an OpenAPI 3.1 document; enforced, or only reported.

``step`` makes a route's ``validate`` step; the judging is in ``schema``, ``openapi`` and ``parameters``, which do no I/O.
"""

from __future__ import annotations

from .schema import Fault, Schema
from .step import Settings, Validate, step

SHORTHAND = (str,)

__all__ = ["SHORTHAND", "Fault", "Schema", "Settings", "Validate", "step"]
