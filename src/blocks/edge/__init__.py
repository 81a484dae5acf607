"""A caching edge: pull and push, in front of any handler. ``Edge`` is the handler; the rest are its settings."""

from blocks.edge.edge import Edge
from blocks.edge.key import KeyRules
from blocks.edge.rules import Rule

__all__ = ["Edge", "KeyRules", "Rule"]
