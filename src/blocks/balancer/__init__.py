"""Choosing among upstreams: a load balancer that is a handler over handlers."""

from .balancer import LoadBalancer
from .endpoint import Endpoint, State
from .events import Event
from .health import Health
from .leaving import Leaving
from .outlier import Outlier
from .policies import P2C, Chance, LeastRequests, Policy, Ring, RoundRobin, by_client, by_header, by_path
from .queue import Queue
from .retries import Retries
from .snapshot import readings

__all__ = [
    "P2C",
    "Chance",
    "Endpoint",
    "Event",
    "Health",
    "LeastRequests",
    "Leaving",
    "LoadBalancer",
    "Outlier",
    "Policy",
    "Queue",
    "Retries",
    "Ring",
    "RoundRobin",
    "State",
    "by_client",
    "by_header",
    "by_path",
    "readings",
]
