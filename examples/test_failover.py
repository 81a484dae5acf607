"""A failover test in virtual time: ten seconds of load, a crash, an hour of health checks, in about a second.

pytest examples/test_failover.py                        # --blocks-real-time runs it in real time
"""

import asyncio


async def test_two_resets_cost_no_request(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    a.fault.next(2).reset()
    result = await blocks.load(lb, rate=100, duration="10s")
    result.expect(errors=0, p99="<500ms")
    assert [entry.fault for entry in a.journal if entry.fault] == ["reset", "reset"]


async def test_a_crashed_member_is_left_out_and_comes_back(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="5s")
    a.crash()
    await blocks.until(lambda: lb.healthy == 1)
    await asyncio.sleep(600)
    assert lb.healthy == 1
    await a.recover()
    await blocks.until(lambda: lb.healthy == 2)
