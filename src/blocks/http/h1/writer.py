"""Heads and chunks as bytes. The framing is stated here and nowhere else, so that a body can never disagree with its head."""

from __future__ import annotations

from blocks.http.message import Section

_PHRASES = {
    100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content",
    206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 305: "Use Proxy",
    307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked",
    424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported", 506: "Variant Also Negotiates", 507: "Insufficient Storage", 508: "Loop Detected",
    511: "Network Authentication Required",
}  # fmt: skip
_status_lines = {code: f"HTTP/1.1 {code} {phrase}\r\n".encode() for code, phrase in _PHRASES.items()}

CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def phrase(status: int) -> str:
    """The reason phrase of a status (RFC 9110 §15), or "" for an unknown one."""
    return _PHRASES.get(status, "")


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` and CRLF."""
    return _status_lines.get(status) or b"HTTP/1.1 %d \r\n" % status


def response_head(status: int, section: Section, extra: bytes) -> bytes:
    """A response's head up to the body. ``extra`` holds the lines that this connection adds: framing, Connection, Date."""
    return b"".join((_status_lines.get(status) or status_line(status), section.wire, extra, b"\r\n"))


def request_head(method: str, target: str, section: Section, extra: bytes) -> bytes:
    """A request's head up to the body. ``extra`` holds the lines that this connection adds."""
    return b"".join(
        (method.encode("ascii"), b" ", target.encode("ascii"), b" HTTP/1.1\r\n", section.wire, extra, b"\r\n")
    )


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 §7.1); ``data`` is not empty, as an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Section | None) -> bytes:
    """The end of a chunked body, with its trailers."""
    if trailers is None or not trailers.pairs:
        return LAST_CHUNK
    return b"0\r\n" + trailers.wire + b"\r\n"
