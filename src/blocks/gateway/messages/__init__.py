"""Requests become messages, and messages become streams, by way of the two protocols in ``blocks.core.messaging``.

``publish`` is the end of a route that takes messages; ``subscribe`` that of one that streams them (Server-Sent Events, WebSocket).
"""
