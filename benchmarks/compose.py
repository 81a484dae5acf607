"""What a pass-through handler before the balancer costs in one process, against the balancer alone: CPU µs a request, in turn.

    python benchmarks/compose.py [--rounds 7]

Server, filters, balancer and upstream are the real ones; the two transports are stand-ins, so that the figure is ours and not the kernel's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from blocks import Edge, Gateway, LoadBalancer, Request, Response, Upstream, chain, route, running
from blocks.http import Limits, Timeouts, direct
from blocks.http.handler import Handler
from blocks.http.inbound import Inbound
from blocks.http.outbound import Outbound
from blocks.http.service import Service

REQUEST = b"GET /a HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 03:45:23 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"
    + b"x" * 1024
)


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: object = None) -> object:
        return None if name in ("ssl_object", "socket") else ("127.0.0.1", 1)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


@direct
async def through(request: Request, next: Handler) -> Response:
    return await next(request)


def per_request(handler: Handler, upstream: Upstream, loop: asyncio.AbstractEventLoop, number: int = 30000) -> float:
    """CPU µs a request through a connection of its own."""
    service = Service(loop, handler, Limits(), Timeouts())
    client, back = Inbound(service), Outbound(upstream.pool)
    client.connection_made(Wire())
    back.connection_made(Wire())
    upstream.pool.release(back)
    began = time.process_time()
    for _ in range(number):
        client.data_received(REQUEST)
        back.data_received(ANSWER)
    spent = time.process_time() - began
    assert service.requests == number
    client.connection_lost(None)
    upstream.pool.take()
    back.connection_lost(None)
    return spent / number * 1e6


async def main(rounds: int) -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream("http://127.0.0.1:1", uses=10**9)
    balancer = LoadBalancer([upstream])
    gateway = Gateway([route("/", balancer)])
    edge = Edge(gateway)
    async with running(edge):
        stacks = {
            "balancer": balancer,
            "two filters before it": chain(through, through, to=balancer),
            "gateway before it": gateway,
            "edge before gateway before it, nothing stored": edge,
        }
        results: dict[str, list[float]] = {name: [] for name in stacks}
        done = loop.create_future()

        def measure() -> None:  # a plain callback: inside a task the driver would not be used
            for _ in range(rounds):
                for name, stack in stacks.items():
                    results[name].append(per_request(stack, upstream, loop))
            done.set_result(None)

        loop.call_soon(measure)
        await done
    base = results["balancer"]
    print("| in one process | CPU µs a request | against the balancer alone |\n| --- | --- | --- |")
    for name, figures in results.items():
        ratio = statistics.median(a / b for a, b in zip(figures, base, strict=True))
        print(f"| {name} | {statistics.median(figures):.2f} | {ratio:.3f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(main(parser.parse_args().rounds))
