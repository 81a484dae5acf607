from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from blocks.broker.client import connect
from broker.processes import ENVIRONMENT, command, running

pytestmark = pytest.mark.integration


async def test_a_broker_says_where_it_is_drains_and_exits_0(tmp_path: Path) -> None:
    ports = tmp_path / "ports.json"
    async with running(
        tmp_path / "data", "--ports-file", str(ports), "--admin", "127.0.0.1:0", "--http", "127.0.0.1:0"
    ) as broker:
        assert broker.ready["event"] == "ready"
        assert json.loads(ports.read_text()) == broker.ready
        assert broker.ready["admin"].startswith("http://127.0.0.1:")
        async with connect(broker.url) as client:
            receipt = await client.publish("t", b"x")
            assert receipt.durability == "fsync"
        assert await broker.end() == 0


async def test_systemd_is_told_of_the_start_and_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(20)
        monkeypatch.setitem(ENVIRONMENT, "NOTIFY_SOCKET", str(path))
        async with running(tmp_path / "data") as broker:
            assert (await asyncio.to_thread(told.recv, 100)).startswith(
                b"READY=1\nSTATUS=serving on blocks://127.0.0.1:"
            )
            assert await broker.end() == 0
            assert (await asyncio.to_thread(told.recv, 100)).startswith(b"STOPPING=1\n")


async def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as broker:
        url = ("--url", broker.url)
        code, out, _ = await command(
            "publish", "orders.created", "hello", "--header", "a=b", "--id", "1", *url, "--json"
        )
        assert (code, json.loads(out)) == (
            0,
            {"topic": "orders.created", "offset": 0, "duplicate": False, "durability": "fsync"},
        )
        code, out, _ = await command("publish", "orders.created", "hello", "--id", "1", *url)
        assert (code, out.split()) == (0, ["orders.created@0", "fsync", "duplicate"])
        code, out, _ = await command("publish", "orders.created", "--lines", *url, "--key", "k", stdin=b"one\ntwo\n")
        assert (code, out) == (0, "2 messages acknowledged\n")
        code, out, _ = await command("tail", "orders.*", "--start", "2", "--count", "1", "--json", *url)
        assert json.loads(out)["key"] == "k"
        code, out, _ = await command("tail", "orders.*", "--start", "earliest", "--count", "3", *url)
        assert (code, out) == (0, "hello\none\ntwo\n")
        code, out, _ = await command(
            "tail", "orders.*", "--start", "earliest", "--count", "1", "--json", "--group", "g", *url
        )
        row = json.loads(out)
        assert (code, row["payload"], row["headers"], row["offset"]) == (0, "hello", {"a": "b"}, 0)
        code, out, _ = await command("tail", "orders.*", "--timeout", "50ms", *url)
        assert (code, out) == (0, "")
        code, out, _ = await command("topics", "--json", *url)
        assert [json.loads(line)["topic"] for line in out.splitlines()] == ["orders.created"]
        code, out, _ = await command("groups", "--json", *url)
        assert [json.loads(line)["group"] for line in out.splitlines()] == ["g"]
        code, out, _ = await command("lag", *url)
        assert code == 0
        assert "g" in out
        code, out, _ = await command("redrive", "g", "--json", *url)
        assert (code, json.loads(out)["redriven"]) == (0, 0)
        code, out, _ = await command("bench", "--messages", "1000", "--window", "100", "--json", *url)
        assert [json.loads(line)["bench"] for line in out.splitlines()] == ["publish", "publish-single", "drain-ack"]
        assert await broker.end() == 0
    code, out, err = await command("verify", "--data", str(tmp_path / "data"), "--json")
    assert code == 0, (out, err)
    assert json.loads(out)["ok"] is True


async def test_exit_codes_tell_what_was_wrong(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = await command("--listen", f"127.0.0.1:{taken.getsockname()[1]}", *data)
        assert code == 4
        assert "cannot listen" in err
    code, _, err = await command("--listen", "0.0.0.0:0", *data)
    assert code == 3
    assert "token-file" in err
    assert (await command("--listen", "nonsense", *data))[0] == 3
    assert (await command("--data"))[0] == 2
    assert (await command("--durability", "wishful", *data))[0] == 2
    assert (await command())[0] == 2
    assert (await command("tail", "t", "--start", "someday"))[0] == 2
    assert (await command("topics", "--url", "blocks://127.0.0.1:1"))[0] == 1
    assert (await command("topics", "--url", "http://127.0.0.1:1"))[0] == 3


async def test_a_second_signal_stops_a_drain_that_waits(tmp_path: Path) -> None:
    async with running(tmp_path / "data", "--drain", "60s") as broker, connect(broker.url, give_up_after=0.0) as client:
        await client.publish("t", b"x")
        async with client.subscribe("t", group="g", start="earliest") as messages:
            await anext(messages)
            assert broker.process is not None
            broker.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert broker.process.returncode is None
            assert await broker.end(signal.SIGTERM) == 0


async def test_a_drain_that_times_out_exits_5(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "data", "--drain", "200ms") as broker,
        connect(broker.url, give_up_after=0.0) as client,
    ):
        await client.publish("t", b"x")
        async with client.subscribe("t", group="g", start="earliest") as messages:
            await anext(messages)
            assert await broker.end(signal.SIGTERM) == 5
