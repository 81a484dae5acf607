"""The client for threads: the same calls without ``await``, over one loop that runs in a thread of its own.

Source of the shape: ``redis.Redis`` beside ``redis.asyncio.Redis``. Any number of threads may share one client.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from types import TracebackType
from typing import Any, TypeVar

from .client import Client
from .client import connect as connect_async
from .errors import Closed
from .message import Message, Outgoing, Receipt
from .subscription import RemoteMessage, Subscription

T = TypeVar("T")


def connect(url: str, **options: Any) -> SyncClient:
    """A client for threads, connected by ``with``; the options are those of ``blocks.connect``. Raises ``ConfigError``."""
    return SyncClient(connect_async(url, **options))


class SyncClient:
    """A broker's client whose calls block the calling thread; ``with`` opens and closes it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> SyncClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="broker-client", daemon=True)
        self._thread.start()
        try:
            self.run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drain and close, and end the thread."""
        if self._loop is not None:
            try:
                self.run(self._client.close())
            finally:
                self._stop()

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``work``, run on the client's loop. Interrupted (Ctrl-C), it is cancelled there."""
        if self._loop is None:
            work.close()
            raise Closed("the client is not connected: use `with connect(...)`")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except FutureCancelled:
            raise Closed("the client is closed") from None
        except BaseException:
            future.cancel()
            raise

    def publish(self, topic: str, payload: bytes, **options: Any) -> Receipt:
        """Publish one message, and return when it is as durable as the broker's mode promises (``Client.publish``)."""
        return self.run(self._client.publish(topic, payload, **options))

    def publish_many(self, topic: str, payloads: Iterable[bytes], **options: Any) -> list[Receipt]:
        """Publish messages in order and return their receipts (``Client.publish_many``)."""
        return self.run(self._client.publish_many(topic, payloads, **options))

    def publish_batch(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        """Publish messages, all or none (``Client.publish_batch``)."""
        return self.run(self._client.publish_batch(messages))

    def request(
        self, topic: str, payload: bytes, *, headers: Mapping[str, str] | None = None, timeout: float = 5.0
    ) -> Message:
        """Publish a request and return its answer. Raises ``TimeoutError`` (``Client.request``)."""
        return self.run(self._client.request(topic, payload, headers=headers, timeout=timeout))

    def ask(self, verb: str, **arguments: Any) -> Any:
        """The broker's answer to ``verb`` (``Client.ask``)."""
        return self.run(self._client.ask(verb, **arguments))

    def subscribe(self, pattern: str, **options: Any) -> SyncSubscription:
        """Messages of the topics that ``pattern`` matches, opened by ``with`` and taken by ``for`` (``Client.subscribe``)."""
        return SyncSubscription(self, self._client.subscribe(pattern, **options))


class SyncSubscription:
    """A subscription whose messages are taken by a plain ``for``, in the thread that wants them."""

    def __init__(self, client: SyncClient, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    def __enter__(self) -> SyncSubscription:
        self._client.run(self._subscription.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.run(self._subscription.close())

    def __iter__(self) -> Iterator[SyncMessage]:
        while True:
            message = self.next()
            if message is None:
                return
            yield message

    def next(self, timeout: float | None = None) -> SyncMessage | None:
        """The next message; None once the subscription is closed. Raises ``TimeoutError`` after ``timeout`` seconds without one."""

        async def take() -> RemoteMessage | None:
            try:
                async with asyncio.timeout(timeout):
                    return await self._subscription.__anext__()
            except StopAsyncIteration:
                return None

        message = self._client.run(take())
        return SyncMessage(self._client, message) if message is not None else None


class SyncMessage:
    """A delivered message; ``ack`` and the others block until the loop has taken them. The rest is the message's own."""

    __slots__ = ("_client", "_message")

    def __init__(self, client: SyncClient, message: RemoteMessage) -> None:
        self._client = client
        self._message = message

    @property
    def topic(self) -> str:
        """Where it was published."""
        return self._message.topic

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return self._message.payload

    @property
    def offset(self) -> int:
        """Its place in the topic."""
        return self._message.offset

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        return self._message.headers

    @property
    def key(self) -> bytes | None:
        """Its ordering key."""
        return self._message.key

    @property
    def id(self) -> str | None:
        """Its publisher's id."""
        return self._message.id

    @property
    def attempt(self) -> int:
        """1 for the first delivery to this group."""
        return self._message.attempt

    @property
    def timestamp(self) -> float:
        """When the broker stored it: wall-clock seconds."""
        return self._message.timestamp

    def ack(self, wait: bool = False) -> None:
        """Say that it is done. With ``wait``: return when the broker has that on disk."""
        self._client.run(self._message.ack(wait))

    def nack(self, delay: float | None = None) -> None:
        """Give it back, to be delivered again after ``delay`` seconds."""
        self._client.run(self._message.nack(delay))

    def reject(self, reason: str = "") -> None:
        """It can never be processed: to the dead letters, with ``reason``."""
        self._client.run(self._message.reject(reason))

    def extend(self, seconds: float) -> None:
        """Keep it for ``seconds`` more."""
        self._client.run(self._message.extend(seconds))

    def respond(self, payload: bytes, headers: Mapping[str, str] | None = None) -> Receipt:
        """Answer the one who asked with ``request``."""
        return self._client.run(self._message.respond(payload, headers))
