"""A gateway with several workers: every worker reads the new file, and none answers by the old one afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from gateway.gateway_kit import until
from gateway.process_kit import Process, ask

pytestmark = pytest.mark.integration

TEXT = """
[change]
share = {share}
watch = "1s"
requests = 5
slower = 1000

[[routes]]
path = "/"
respond = {{body = "{body}"}}
"""


async def bodies(url: str, count: int = 40) -> Counter[bytes]:
    """What as many connections get, which the kernel spreads over the workers."""
    return Counter([(await ask(url)).body for _ in range(count)])


async def test_every_worker_takes_the_new_file_or_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text(TEXT.format(share=1, body="one"))
    words = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2")
    async with Process("gateway", "--config", path, *words) as process:
        url, admin = process.ready["url"], process.ready["admin"]
        assert set(await bodies(url)) == {b"one"}

        path.write_text(TEXT.format(share=1, body="two"))
        answer = await ask(admin, "/v1/gateway/reload", "POST")
        assert answer.status == 200
        assert [worker["body"]["verdict"] for worker in answer.json()["workers"]] == ["promote", "promote"]
        assert set(await bodies(url)) == {b"two"}, "no worker answers by the old file"

        path.write_text(TEXT.format(share=1, body="three") + "junk = 1\n")
        answer = await ask(admin, "/v1/gateway/reload", "POST")
        assert answer.status == 422
        assert all("junk" in json.dumps(worker["body"]) for worker in answer.json()["workers"])
        assert set(await bodies(url)) == {b"two"}, "and a wrong one changes nothing in any"

        path.write_text(TEXT.format(share=0.5, body="four"))
        assert (await ask(admin, "/v1/gateway/reload?share=1", "POST")).status == 200
        path.write_text(TEXT.format(share=0.5, body="five"))
        trial = asyncio.create_task(ask(admin, "/v1/gateway/reload", "POST"))
        seen: Counter[bytes] = Counter()
        while not trial.done():
            seen += await bodies(url, 10)
        assert set(seen) == {b"four", b"five"}, "each worker tries it on a share of its requests"
        assert (await trial).status == 200
        assert set(await bodies(url)) == {b"five"}

        answer = await ask(admin, "/v1/gateway/rollback", "POST")
        assert answer.status == 200
        assert set(await bodies(url)) == {b"four"}


async def test_a_storm_of_reloads_costs_no_request(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    many = "".join(
        f'[[routes]]\npath = "/r{number}/{{id:int}}"\nrespond = {{}}\nlimit = "100/s per ip"\n' for number in range(200)
    )

    def write(body: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(TEXT.format(share=1, body=body) + many)
        draft.replace(path)

    write("0")
    seen: Counter[tuple[int, bytes]] = Counter()
    async with Process("gateway", "--config", path, "--listen", "127.0.0.1:0") as process:
        url, over = process.ready["url"], False

        async def load() -> None:
            while not over:
                answer = await ask(url)
                seen[answer.status, answer.body] += 1

        clients = [asyncio.create_task(load()) for _ in range(4)]
        for number in range(1, 31):
            write(str(number))
            process.send(signal.SIGHUP)
            await asyncio.sleep(0.01)

        async def last() -> bool:
            return (await ask(url)).body == b"30"

        await until(last, every=0.05)
        before = seen.total()
        await until(lambda: seen.total() > before + 50)
        over = True
        await asyncio.gather(*clients)
        assert (await ask(url, "/r7/5")).status == 200
        assert await process.stop() == 0
    assert {status for status, _ in seen} == {200}
    assert not process.errors.count(b"Traceback")
