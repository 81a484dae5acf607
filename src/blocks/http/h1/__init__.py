"""HTTP/1.1 as rules without I/O: readers, framing, writers (RFC 9112)."""

from .fields import BadMessage, Facts
from .limits import DEFAULT, Limits
from .reader import End, Part, RequestHead, RequestReader, ResponseHead, ResponseReader
from .writer import chunk, request_head, response_head

__all__ = [
    "DEFAULT",
    "BadMessage",
    "End",
    "Facts",
    "Limits",
    "Part",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
    "chunk",
    "request_head",
    "response_head",
]
