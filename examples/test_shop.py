"""``shop.toml`` under test: the very file that is run, on free ports, in memory and in virtual time, with scripted services.

pytest examples/test_shop.py                            # --blocks-real-time runs it in real time
"""

import asyncio
from pathlib import Path

from blocks import Response

SHOP = Path(__file__).with_name("shop.toml")


async def shop(blocks):
    """The shop, and the two catalogs that it asks here."""
    catalogs = await blocks.origins(2, Response(200, {"cache-control": "max-age=60"}, b"shoes"))
    scripted = {"balancers.catalog.upstreams": catalogs, "apps.back_office": {"python": "shop_apps:oak"}}
    return await blocks.stack(SHOP, replace=scripted), *catalogs


async def test_an_item_is_asked_for_once_a_minute(blocks):
    stack, a, b = await shop(blocks)
    for _ in range(10):
        assert (await stack.get("/items/7")).body == b"shoes"
        await asyncio.sleep(6)
    asked = a.journal.matching(path="/items/7") + b.journal.matching(path="/items/7")
    assert 1 <= len(asked) <= 2  # lifetimes are shortened a little by chance, so that not all end at once


async def test_no_catalog_is_missed_for_half_an_hour(blocks):
    stack, a, b = await shop(blocks)
    await stack.get("/items/7")
    a.crash()
    b.crash()
    await asyncio.sleep(1800)
    assert (await stack.get("/items/7")).body == b"shoes"
    assert (await stack.get("/items/8")).status in (502, 503, 504)  # nobody had asked for this one


async def test_an_order_that_is_sent_twice_is_stored_once_and_comes_again_until_it_is_done(blocks):
    stack, *_ = await shop(blocks)
    answers = [await stack.request("POST", "/orders", {"idempotency-key": "order-1"}, b"1") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    async with stack["bus"].subscribe("orders.*", group="billing", start="earliest", max_lease="30s") as orders:
        first = await anext(orders)
        again = await anext(orders)  # a worker that hangs may keep the first for half a minute, which is over at once
        assert (first.payload, again.payload, again.attempt) == (b"1", b"1", 2)
        await again.ack(wait=True)


async def test_one_customer_orders_five_times_a_minute(blocks):
    stack, *_ = await shop(blocks)
    statuses = [(await stack.request("POST", "/orders", body=b"%d" % number)).status for number in range(7)]
    assert statuses == [202] * 5 + [429] * 2
    await asyncio.sleep(60)
    assert (await stack.request("POST", "/orders", body=b"8")).status == 202
