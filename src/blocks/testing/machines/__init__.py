"""State machines for Hypothesis that users point at their own service: topologies, caches, limits, queues, in virtual time.

Subclass one, say in ``build`` what is under test, and run its ``TestCase``; what fails shrinks to a few steps and a timeline.
"""

from __future__ import annotations

from .cache import CacheMachine
from .limit import LimitMachine
from .machine import Machine
from .queue import QueueMachine
from .topology import TopologyMachine

__all__ = ["CacheMachine", "LimitMachine", "Machine", "QueueMachine", "TopologyMachine"]
