"""A caching edge: pull and push, in front of any handler. ``Edge`` is the handler; the rest are its settings and filters before it."""

from blocks.edge.edge import Edge
from blocks.edge.guards import GeoGuard, HotlinkGuard
from blocks.edge.key import KeyRules
from blocks.edge.rules import Rule
from blocks.edge.signed import SignedUrls, sign

__all__ = ["Edge", "GeoGuard", "HotlinkGuard", "KeyRules", "Rule", "SignedUrls", "sign"]
