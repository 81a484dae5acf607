"""A FastAPI application under test, with a payment service that fails: exact faults, and timeouts that take no time.

pytest examples/test_fastapi.py                         # needs fastapi and httpx; --blocks-real-time runs it in real time
"""

from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException


def checkout(payments: str) -> FastAPI:
    """The application: charges once, tries a second time under the same key, and says so when it cannot."""

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        async with httpx.AsyncClient(base_url=payments, timeout=5) as app.state.payments:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/checkout/{order}")
    async def pay(order: int):
        for _ in range(2):
            try:
                answer = await app.state.payments.post("/charge", headers={"idempotency-key": f"order-{order}"})
                answer.raise_for_status()
            except (httpx.TransportError, httpx.HTTPStatusError):
                continue
            return {"order": order, **answer.json()}
        raise HTTPException(503, "payments are away; your order is kept", headers={"retry-after": "30"})

    return app


async def shop(blocks):
    """The payment service that we script, and the application, served, that calls it."""
    payments = await blocks.origin({"paid": True}, name="payments")
    return payments, await blocks.balancer(await blocks.asgi(checkout(payments.url), name="checkout"))


async def test_it_charges(blocks):
    payments, app = await shop(blocks)
    response = await app.request("POST", "/checkout/7")
    assert (response.status, response.body) == (200, b'{"order":7,"paid":true}')
    assert [entry.path for entry in payments.journal] == ["/charge"]


async def test_a_broken_connection_is_tried_again_under_the_same_key(blocks):
    payments, app = await shop(blocks)
    payments.fault.next(1).reset()  # exactly the next one
    assert (await app.request("POST", "/checkout/7")).status == 200
    assert [entry.headers["idempotency-key"] for entry in payments.journal] == ["order-7", "order-7"]


async def test_a_payment_service_that_hangs_is_told_to_the_customer(blocks):
    payments, app = await shop(blocks)
    payments.fault.always().hang()
    began = blocks.clock.monotonic()
    response = await app.request("POST", "/checkout/7")
    assert (response.status, response.headers["retry-after"]) == (503, "30")
    assert 10 <= blocks.clock.monotonic() - began < 11  # two timeouts of five seconds, in a few milliseconds


async def test_every_tenth_failure_costs_no_customer(blocks):
    payments, app = await shop(blocks)
    payments.fault.every(10).status(500)
    result = await blocks.load(app, rate=50, duration="4s", method="POST", path=lambda number: f"/checkout/{number}")
    result.expect(errors=0)
    assert payments.journal.total > 200
