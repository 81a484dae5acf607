"""Limits: how often, how much and how many at once, decided for all limits of a request together or not at all."""

from .rule import Limit as Limit
