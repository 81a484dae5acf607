from __future__ import annotations


async def test_failover(blocks):
    a, b = await blocks.origins(2)
    lb = await blocks.balancer(a, b, health="250ms")
    armed = a.fault.next(2).reset()
    result = await blocks.load(lb, rate=500, duration="10s")
    result.expect(errors=0, p99="<20ms", requests=5000, availability=">=99.95%")
    assert armed.spent
    assert len(armed.hits) == 2
    assert [entry.fault for entry in a.journal if entry.fault] == ["reset", "reset"]
