"""A kit for code without ``await``: the loop runs in a thread, and every call waits for its result."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from .kit import Kit

T = TypeVar("T")
# of what is not ours here, what must be called on the loop: its values are plain, its methods are not
_ON_THE_LOOP = frozenset({"blocks.broker.broker", "blocks.broker.client", "blocks.broker.standing"})
WITHIN = 60.0  # seconds for one call; a test runner's own bound is longer


class Bridge:
    """``with Bridge(Kit()) as blocks``: ``blocks.origins(2)`` returns origins, not an awaitable. Time is real.

    What comes back is wrapped in turn, so that ``lb.get("/")`` waits too; the bare object is its ``bare``.
    """

    def __init__(self, kit: Kit | None = None) -> None:
        self.kit = kit or Kit()
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="blocks-bridge", daemon=True)

    def __enter__(self) -> Bridge:
        self._thread.start()
        self.run(self.kit.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self.kit.close())
            self.run(self._loop.shutdown_default_executor())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in the loop's thread; what it returns is awaited if it can be. Arming several faults in one is atomic."""

        async def work() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return self.run(work())  # type: ignore[no-any-return]  # the function's

    def __getattr__(self, name: str) -> Any:
        return getattr(Handle(self.kit, self), name)


class Handle:
    """An object that lives on the bridge's loop: methods run there and wait, values come back as they are."""

    def __init__(self, bare: Any, bridge: Bridge) -> None:
        self.bare = bare
        self._bridge = bridge

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.bare, name)
        if not inspect.isroutine(value):
            return self._wrapped(value)

        def called(*args: Any, **kwargs: Any) -> Any:
            plain = [_bare(argument) for argument in args]
            named = {key: _bare(argument) for key, argument in kwargs.items()}
            return self._wrapped(self._bridge.call(value, *plain, **named))

        return called

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._wrapped(one) for one in value]
        home = type(value).__module__
        ours = home in _ON_THE_LOOP or (home.startswith("blocks.testing") and not hasattr(value, "expect"))
        return Handle(value, self._bridge) if ours else value

    def __len__(self) -> int:
        return len(self.bare)

    def __bool__(self) -> bool:
        return bool(self.bare)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._wrapped(list(self.bare)))

    def __getitem__(self, key: Any) -> Any:
        return self._wrapped(self.bare[key])

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("bare", "_bridge"):
            super().__setattr__(name, value)
        else:
            self._bridge.call(setattr, self.bare, name, _bare(value))

    def __repr__(self) -> str:
        return repr(self.bare)


def _bare(value: Any) -> Any:
    return value.bare if isinstance(value, Handle) else value
