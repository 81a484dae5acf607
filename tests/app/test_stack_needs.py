"""``needs``: a part of the stack is given other parts of it, as objects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.staged import asking, get, loaded, until, written
from blocks.app.check import examine
from blocks.app.source import read_stack
from blocks.app.tree import topology

CODE = """
import asyncio
from blocks import Response

class Billing:
    def __init__(self, bus):
        self.bus, self.done, self.entered = bus, [], []
    async def __aenter__(self):
        self.entered.append("in")
        self.task = asyncio.create_task(self.work())
        return self
    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.wait([self.task])
        self.entered.append("out")
    async def work(self):
        async with self.bus.subscribe("orders", group="billing", start="earliest") as messages:
            async for message in messages:
                self.done.append(message.payload)
                await message.ack()

def worker(bus):
    return Billing(bus)

def front(billing_page, bus):
    async def handler(request):
        if request.method == "POST":
            await bus.publish("orders", await request.read())
            return Response(202)
        return await billing_page(request)
    return handler

async def billing_page(request):
    return Response.text("bills")

async def later(bus):
    return billing_page

def fails(bus):
    raise LookupError("no such account")

def nothing(bus):
    return 5
"""

STACK = """
[servers.public]
listen = "127.0.0.1:0"
handler = "front"
[apps.front]
python = "MODULE:front"
needs = ["billing_page", "bus"]
[apps.billing]
python = "MODULE:worker"
needs = ["bus"]
[apps.billing_page]
python = "MODULE:billing_page"
[brokers.bus]
data = ":memory:"
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[str]:
    name = f"needs_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    path = list(sys.path)
    yield name
    sys.path[:] = path
    sys.modules.pop(name, None)


async def test_an_application_is_given_the_broker_and_the_handlers_that_it_needs(tmp_path: Path, module: str):
    path = written(tmp_path, STACK.replace("MODULE", module))
    async with loaded(path) as stack, asking(stack.servers["public"].url) as client:
        assert stack.warnings == []
        billing = stack["billing"]
        assert billing.bus is stack["bus"]
        assert (await get(client, "/", "POST", b"one"))[0] == 202
        await until(lambda: billing.done == [b"one"])
        assert (await get(client, "/"))[1] == "bills"
        path.write_text(path.read_text().replace("[apps.billing_page]", "# changed\n[apps.billing_page]"))
        await stack.reload()
        assert stack["billing"] is billing
        path.write_text(path.read_text().replace(f"{module}:worker", f"{module}:Billing"))
        await stack.reload()
        assert stack["billing"] is not billing
        await until(lambda: billing.entered == ["in", "out"])
        last = stack["billing"]
    assert last.entered == ["in", "out"]


def test_the_tree_draws_what_is_needed(tmp_path: Path, module: str):
    found = topology(read_stack(written(tmp_path, STACK.replace("MODULE", module)), {}).tables)
    links = {(link.source, link.target) for link in found.links}
    assert {
        ("apps.front", "brokers.bus"),
        ("apps.front", "apps.billing_page"),
        ("apps.billing", "brokers.bus"),
    } <= links


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('needs = ["bus"]', 'needs = ["bsu"]', "there is no handler and no broker 'bsu'; did you mean 'bus'?"),
        ('needs = ["bus"]', 'needs = ["the bus"]', "cannot be the name of a parameter"),
        ('needs = ["bus"]', 'needs = ["bus", "front"]', "unexpected keyword argument 'front'"),
        ('"MODULE:worker"', '"MODULE:later"', "is async"),
        ('"MODULE:worker"', '"MODULE:fails"', "LookupError: no such account"),
        ('"MODULE:worker"', '"MODULE:nothing"', "returns a int, which is not callable"),
        (
            'data = ":memory:"',
            'data = ":memory:"\n[upstreams.bus]\nurl = "http://127.0.0.1:9"',
            "is a handler and a broker",
        ),
        ('needs = ["billing_page", "bus"]', 'needs = ["front", "bus"]', "a circle: front → front"),
    ],
)
def test_what_cannot_be_given_is_told(tmp_path: Path, module: str, old: str, new: str, says: str):
    assert old in STACK
    path = written(tmp_path, STACK.replace(old, new).replace("MODULE", module))
    assert any(says in one.message for one in examine(path, {}).errors), examine(path, {}).found


def test_a_stack_is_among_the_names_of_the_package():
    import blocks
    from blocks.app.stack import Stack

    assert blocks.Stack is Stack
    assert "Stack" in dir(blocks)
