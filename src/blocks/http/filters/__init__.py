"""What stands in a chain before a handler: ``chain(request_id(), forwarded(), compress(), to=handler)``, outermost first.

Each name here makes a filter. All are direct: in a server's hot path they cost a function call and what they do.
"""

from .access_log import AccessLog as access_log  # noqa: N813  # in a chain a filter reads as a verb
from .body_limit import body_limit
from .budget import Budget
from .compress import Compress as compress  # noqa: N813
from .forwarded import Forwarded as forwarded  # noqa: N813
from .real_client import RealClient as real_client  # noqa: N813
from .request_id import request_id
from .retry import Retry as retry  # noqa: N813
from .timeout import timeout
from .trace_context import trace_context

__all__ = [
    "Budget",
    "access_log",
    "body_limit",
    "compress",
    "forwarded",
    "real_client",
    "request_id",
    "retry",
    "timeout",
    "trace_context",
]
