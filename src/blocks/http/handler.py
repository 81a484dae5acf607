"""A handler is an async function from a request to a response. Everything HTTP is a handler.

An upstream is a handler that asks another machine. A balancer is a handler over handlers. A gateway chooses one, an edge
remembers, and ``serve`` is the only thing that listens. (Eriksen, "Your Server as a Function", 2013.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from blocks.core.status import Status, worst

from .message import Request, Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Filter = Callable[[Request, Handler], Coroutine[Any, Any, Response]]

C = TypeVar("C", bound=Callable[..., Awaitable[Any]])


def direct(function: C) -> C:
    """Mark a handler or filter as one that needs no current task (no ``asyncio.timeout``, no ``current_task``) before it calls on.

    The server then drives it without a task, 3 µs cheaper; see ``blocks.core.pending``. Unmarked ones get a task: always right.
    """
    function.direct = True  # type: ignore[attr-defined]  # a mark on a function
    return function


def is_direct(handler: object) -> bool:
    """Whether ``handler`` says that it may be driven without a task."""
    return bool(getattr(handler, "direct", False))


def bind(handler: Handler) -> Handler:
    """``handler`` as a direct caller may call it: itself when it is direct, else run in a task of its own."""
    return handler if is_direct(handler) else _InTask(handler)


class _InTask:
    """Runs a handler that needs a current task from a caller that may have none."""

    direct = True

    def __init__(self, handler: Handler) -> None:
        self.parts = self.behind = (handler,)
        self._handler = handler

    async def __call__(self, request: Request) -> Response:
        return await asyncio.get_running_loop().create_task(self._handler(request))


class _Link:
    """One filter before one handler."""

    __slots__ = ("_filter", "_next", "behind", "direct", "parts")

    def __init__(self, filter: Filter, next: Handler) -> None:
        self.direct = is_direct(filter)
        self._filter = filter
        self._next = bind(next) if self.direct else next
        self.parts = self.behind = (filter, next)

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        return self._filter(request, self._next)

    def __repr__(self) -> str:
        return repr(self.parts[1])  # who asks what failed wants to know where it leads


def chain(*filters: Filter, to: Handler) -> Handler:
    """``filters`` before the handler ``to``, outermost first, resolved once: a call costs a function call a filter.

    >>> app = chain(request_id, access_log, to=balancer)        # doctest: +SKIP
    """
    handler = to
    for filter in reversed(filters):
        handler = _Link(filter, handler)
    return handler


def parts_of(handler: object) -> Iterator[object]:
    """The handlers inside a handler, as it names them."""
    yield from getattr(handler, "parts", ())


def walk(root: object) -> Iterator[object]:
    """``root`` and everything inside it, depth first, the inner before the outer, each once."""
    seen: set[int] = set()

    def visit(node: object) -> Iterator[object]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for part in parts_of(node):
            yield from visit(part)
        yield node

    yield from visit(root)


@asynccontextmanager
async def running(*roots: object) -> AsyncIterator[Any]:
    """Enter every part of ``roots`` that is an async context manager, the inner first and each once; leave in reverse.

    Yields the root (or the tuple of roots). A part shared by two roots is entered once.
    """
    async with AsyncExitStack() as stack:
        seen: set[int] = set()
        for root in roots:
            for node in walk(root):
                if id(node) not in seen and hasattr(node, "__aenter__") and not isinstance(node, type):
                    seen.add(id(node))
                    await stack.enter_async_context(node)  # type: ignore[arg-type]  # it has the methods
        yield roots[0] if len(roots) == 1 else roots


def status_of(handler: object) -> Status:
    """How well a composition can take work: what it says of itself, else the worst of its parts."""
    own = getattr(handler, "status", None)
    if isinstance(own, Status):
        return own
    return worst(status_of(part) for part in parts_of(handler))


def topology(
    root: object, label: Callable[[object], str] | None = None, _depth: int = 0
) -> Iterable[tuple[int, str, object]]:
    """(depth, label, node) of the composition, the outer first; filters and functions carry their own names.

    A part that only stands for others names them as ``behind``: they are shown in its place.
    """
    for node in _shown(root):
        name = (
            label(node) if label else str(getattr(node, "name", "") or getattr(node, "__name__", type(node).__name__))
        )
        yield _depth, name, node
        for part in parts_of(node):
            yield from topology(part, label, _depth + 1)


def _shown(node: object) -> Iterator[object]:
    behind = getattr(node, "behind", None)
    if behind is None:
        yield node
    else:
        for part in behind:
            yield from _shown(part)
