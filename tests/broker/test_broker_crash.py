"""A real process is killed under load, and the system calls of a real commit are counted."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from blocks.broker import Broker

pytestmark = pytest.mark.integration

# Publishes and acks as fast as it can, and says on stdout what it was told is durable: `p OFFSET`, `a OFFSET`.
LOAD = """
import asyncio, sys
from blocks.broker import Broker

async def main(path):
    say = sys.stdout.write
    async with Broker(path, segment_bytes="1MiB", durability=sys.argv[3]) as broker:
        async def publish(worker):
            serial = 0
            while True:
                serial += 1
                text = f"{worker}-{sys.argv[2]}-{serial}"
                receipt = await broker.publish("load", text.encode() + b"." * 100, id=text, key=text.encode())
                assert not receipt.duplicate
                say(f"p {receipt.offset} {text}\\n")
                if serial % 50 == 0:
                    sys.stdout.flush()

        async def consume():
            async with broker.subscribe("load", group="g", start="earliest", prefetch=100) as messages:
                async for message in messages:
                    await message.ack(wait=True)
                    say(f"a {message.offset} -\\n")

        await asyncio.gather(*[publish(n) for n in range(20)], consume(), consume())

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("durability", "rounds"), [("fsync", 4), ("interval", 1), ("memory", 1)])
async def test_killed_under_load_nothing_acknowledged_is_lost(tmp_path: Path, durability: str, rounds: int) -> None:
    """A kill leaves the page cache: every mode with a directory survives it."""
    data = tmp_path / "data"
    stored: dict[int, str] = {}
    acked: set[int] = set()
    for round in range(rounds):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LOAD, str(data), str(round), durability, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        lines = 0
        while lines < 3000 * (round + 1):
            line = await process.stdout.readline()
            assert line, "the process ended by itself"
            lines += 1
            note(line, stored, acked)
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        await process.wait()
        for line in rest.splitlines(keepends=True):
            note(line, stored, acked)
        await check(data, stored, acked)
    assert len(stored) > 1000
    assert acked


def note(line: bytes, stored: dict[int, str], acked: set[int]) -> None:
    if not line.endswith(b"\n"):
        return  # it was killed while it spoke
    kind, offset, text = line.decode().split()
    if kind == "a":
        acked.add(int(offset))
    else:
        assert int(offset) not in stored, "two messages were told the same offset"
        stored[int(offset)] = text


async def check(data: Path, stored: dict[int, str], acked: set[int]) -> None:
    async with Broker(data, segment_bytes="1MiB") as broker:
        assert broker.engine.damage == []
        found: dict[int, str] = {}
        async with broker.subscribe("load", start="earliest", ack=False) as messages:
            while (message := messages.poll()) is not None:
                assert message.offset not in found
                found[message.offset] = message.payload.rstrip(b".").decode()
        assert sorted(found) == list(range(len(found))), "offsets are dense"
        assert {offset: found.get(offset) for offset in stored} == stored, "all that was acknowledged is there, once"
        again = {queue: set(q.unacked()) for queue, q in broker.engine.group_named["g"].queues.items()}
        assert not again["load"] & acked, "what was durably done does not come back"
        for offset in list(stored)[-20:]:
            receipt = await broker.publish("load", b"", id=stored[offset])
            assert (receipt.duplicate, receipt.offset) == (True, offset)


SYNCS = """
import asyncio, sys
from blocks.broker import Broker

async def main():
    async with Broker(sys.argv[1], durability=sys.argv[2], interval=30.0) as broker:
        for n in range(100):
            await broker.publish("t", b"x")

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("durability", "least", "most"), [("fsync", 100, 140), ("interval", 1, 20), ("memory", 1, 20)])
async def test_the_system_calls_say_what_the_mode_promises(
    tmp_path: Path, durability: str, least: int, most: int
) -> None:
    trace = tmp_path / "trace"
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-e", "trace=fdatasync,fsync,pwritev", "-o", str(trace),
        sys.executable, "-c", SYNCS, str(tmp_path / "data"), durability,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    if b"Operation not permitted" in errors or b"ptrace" in errors:
        pytest.skip("strace may not trace here")
    assert process.returncode == 0, errors
    text = trace.read_text()
    syncs = len(re.findall(r"fdatasync\(", text))
    assert least <= syncs <= most, f"{syncs} fdatasync calls for 100 messages published one by one"
    if durability == "fsync":
        order = re.findall(r"(pwritev|fdatasync)\((\d+)", text)
        log = max({fd for _, fd in order}, key=[fd for _, fd in order].count)
        calls = [name for name, fd in order if fd == log]
        assert "pwritev pwritev" not in " ".join(calls), "each write is synced before the next one is begun"


FULL_DISK = """
import asyncio, os, sys
from pathlib import Path
from blocks.broker import Broker
from blocks.broker.errors import DiskFull

async def main(path):
    ballast = path / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    stored = []
    async with Broker(path / "data") as broker, broker.subscribe("t", group="g", start="earliest", prefetch=10) as messages:
        try:
            while len(stored) < 10_000:
                payload = b"%d" % len(stored) + os.urandom(20_000)
                await broker.publish("t", payload)
                stored.append(payload)
        except DiskFull:
            pass
        assert 10 < len(stored) < 10_000, len(stored)
        for expected in stored[:5]:
            message = await asyncio.wait_for(anext(messages), 20)
            assert message.payload == expected
            await message.ack()
        ballast.unlink()
        for _ in range(200):
            try:
                await broker.publish("t", b"room again")
                break
            except DiskFull:
                await asyncio.sleep(0.05)
        else:
            raise AssertionError("it did not recover")
        await broker.flush()
    async with Broker(path / "data") as broker, broker.subscribe("t", group="g") as messages:
        assert broker.engine.damage == []
        for expected in [*stored[5:], b"room again"]:
            message = await asyncio.wait_for(anext(messages), 20)
            assert message.payload == expected
            await message.ack()
    print("fine")

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
async def test_a_really_full_disk(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=6m tmpfs {disk} || exit 77; exec {sys.executable} {script} {disk}"
    process = await asyncio.create_subprocess_exec(
        "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    if process.returncode == 77 or b"unshare" in errors:
        pytest.skip("a file system cannot be mounted here")
    assert process.returncode == 0, errors.decode()
    assert out == b"fine\n"
