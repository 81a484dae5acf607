from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blocks.gateway.cli import gateway

GOOD = """
[limits.api]
rate = "5/h"
per = "consumer"
tiers = { gold = "50/h" }

[[routes]]
path = "/orders/{id:int}"
methods = ["GET"]
description = "One order."
limit = "api"
respond = { body = "v1" }

[[routes]]
path = "/files/{rest:path}"
respond = {}
deprecated = 2026-01-01
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return path


def run(*words: Any, **options: Any) -> Result:
    return CliRunner().invoke(gateway, [str(word) for word in words], **options)


def test_check_says_fine_or_everything_and_exits_with_3(file: Path) -> None:
    for words in (["check", file], ["check", "--config", file], ["--config", file, "check"]):
        result = run(*words)
        assert (result.exit_code, "fine: 2 routes" in result.output) == (0, True)
    file.write_text(GOOD + "\nlimits = 1\nmethds = 2\n")
    result = run("check", file)
    assert result.exit_code == 3
    assert "did you mean 'limit'" in result.output
    assert "did you mean 'methods'" in result.output
    assert "blocks: 2 errors" in result.output
    result = run("check", file, "--json")
    assert result.exit_code == 3
    assert [row["line"] for row in json.loads(result.output)] == [19, 20]
    assert run("check", file.with_name("none.toml")).exit_code == 3


def test_usage_errors_exit_with_2(file: Path) -> None:
    assert run("check").exit_code == 2
    assert run().exit_code == 2
    assert run("explain", "GET").exit_code == 2
    assert run("explain", "GET", "/", "-H", "nocolon", "--config", file).exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("--listen", "nowhere").exit_code == 2


def test_explain_names_route_steps_limits_and_keys(file: Path) -> None:
    result = run("explain", "GET", "http://shop/orders/7?x=1", "--consumer", "ann", "--tier", "gold", "--config", file)
    assert result.exit_code == 0
    for words in ("route:     GET /orders/{id:int}", "id=7", "1. limit", "key ann", "all limits decide at once"):
        assert words in result.output
    told = json.loads(run("explain", "GET", "/orders/x", "--json", "--config", file).output)
    assert told["status"] == 404
    told = json.loads(run("explain", "DELETE", "/orders/7", "--json", "--config", file).output)
    assert told["status"] == 405
    told = json.loads(run("explain", "GET", "/a%2fb", "--json", "--config", file).output)
    assert told["status"] == 400


def test_routes_and_diff(file: Path, tmp_path: Path) -> None:
    rows = json.loads(run("routes", file, "--json").output)
    assert [(row["path"], row["steps"]) for row in rows] == [
        ("/orders/{id:int}", ["limit"]),
        ("/files/{rest:path}", ["lifecycle"]),
    ]
    assert "/orders/{id:int}" in run("routes", file).output
    other = tmp_path / "new.toml"
    other.write_text(GOOD.replace("5/h", "6/h"))
    assert run("diff", file, other).output == "~ limits.api.rate: '5/h' -> '6/h'\n"
    assert json.loads(run("diff", file, "--config", other, "--json").output)[0]["how"] == "~"


def test_keys_are_shown_once_and_kept_as_hashes() -> None:
    made = json.loads(run("keys", "ann", "--json").output)
    assert made["hash"].startswith("sha256:")
    again = json.loads(run("keys", "ann", "--hash", "--json", input=made["key"] + "\n").output)
    assert again["hash"] == made["hash"]
    assert "key" not in again
    assert '[consumers."ann"]' in run("keys", "ann").output


def test_the_openapi_document_comes_from_the_routes(file: Path) -> None:
    document = json.loads(run("openapi", file, "--title", "Shop").output)
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/orders/{id}"]["get"]
    assert operation["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
    ]
    assert operation["summary"] == "One order."
    assert "429" in operation["responses"]
    assert document["paths"]["/files/{rest}"]["post"]["deprecated"] is True
    page = run("openapi", file, "--html").output
    assert page.startswith("<!doctype html>")
    assert "/orders/{id:int}" in page


def _write(file: Path, text: str) -> None:
    file.write_text(text)


async def _get(url: str) -> tuple[int, bytes]:
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        data = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.integration
async def test_the_process_serves_reloads_and_keeps_the_old_file_when_the_new_one_is_wrong(file: Path) -> None:
    _write(file, GOOD + "\n[change]\nshare = 1\n")
    words = [
        sys.executable,
        "-m",
        "blocks",
        "gateway",
        "--config",
        str(file),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        url, admin = ready["url"], ready["admin"]
        assert await _get(f"{url}/orders/7") == (200, b"v1")
        assert (await _get(f"{url}/..%2forders/7"))[0] == 400

        async def until(check: Any) -> None:
            for _ in range(200):
                if await check():
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("it did not come about")

        async def refused() -> bool:
            return b"did you mean" in (await _get(f"{admin}/v1/gateway"))[1]

        async def changed() -> bool:
            return (await _get(f"{url}/files/x"))[0] == 418

        _write(file, GOOD + "\nmethds = 1\n")
        process.send_signal(signal.SIGHUP)
        await until(refused)
        assert await _get(f"{url}/orders/7") == (200, b"v1")
        _write(file, GOOD.replace("respond = {}", "respond = { status = 418 }") + "\n[change]\nshare = 1\n")
        process.send_signal(signal.SIGHUP)
        await until(changed)
        history = json.loads((await _get(f"{admin}/v1/gateway/history"))[1])
        assert [row["outcome"] for row in history] == ["running", "running"]
        assert b"blocks_gateway_requests_total" in (await _get(f"{admin}/metrics"))[1]
        explained = json.loads((await _get(f"{admin}/v1/gateway/explain?method=GET&url=/orders/7"))[1])
        assert explained["route"] == "GET /orders/{id:int}"
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.integration
async def test_a_wrong_file_at_the_start_exits_with_3(file: Path) -> None:
    _write(file, "junk = 1\n")
    words = [sys.executable, "-m", "blocks", "gateway", "--config", str(file), "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    assert b"unknown key 'junk'" in errors


def test_explain_says_that_a_route_is_closed(file: Path) -> None:
    file.write_text('[gateway]\nauth = "deny"\n' + GOOD)
    shown = run("explain", "GET", "/orders/7", "--config", file)
    assert (shown.exit_code, "403 for everybody" in shown.output) == (0, True)
