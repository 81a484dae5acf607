"""Every example is run as a user would: it says what it shows, ends by itself with 0, and stays up with ``--keep`` until it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.integration

SAYS = {
    "balancer.py": ["all three: 1000 answers", "a crashes: 1000 answers", "c is drained: 1000 answers"],
    "canary.py": ["share 100%: {'new': 1000}", "nobody went back and forth"],
    "edge.py": ["100 readers, 1 asked of the origin", "the origin is gone: 100 readers, 0 asked of the origin"],
    "gateway.py": [
        "nobody           401",
        "ann, all orders  403",
        "gita, all orders 200",
        "gita, 20 at once: 0 refused",
    ],
    "live_orders.py": ["offset 1 (again)", "screen 2 shows ['shoes', 'hats']", "shows what it missed: ['socks']"],
    "shop.py": ["blocks; hit; ttl=", "order 6: 429", "billing of order 4", "notification of order 4"],
    "work_queue.py": ["101 jobs are stored", "set aside: b'poison'"],
}


def run(*command: str, timeout: float = 110) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert not done.stderr
    return done.stdout


def test_every_example_is_run():
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert {name for name in programs if not name.startswith("test_")} == {*SAYS, "demo.py", "shop_apps.py"}
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in (*programs, "shop.toml") if f"({name})" not in listed] == []


@pytest.mark.parametrize("name", sorted(SAYS))
def test_the_example_says_what_it_shows_and_ends(name: str):
    said = run(str(EXAMPLES / name))
    assert [line for line in SAYS[name] if line not in said] == [], said


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("test_*.py")), ids=lambda path: path.name)
def test_the_tests_among_the_examples_pass(path: Path):
    assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(path))


@pytest.mark.parametrize("name", ["edge.py", "shop.py"])
def test_it_stays_up_when_it_is_asked_to(name: str):
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / name), "--keep"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert any("still up at http://127.0.0.1:" in line for line in process.stdout)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_shop_is_short():
    assert len((EXAMPLES / "shop.py").read_text().splitlines()) < 80


def test_the_shop_of_the_file_is_the_same():
    said = run("-m", "blocks", "check", "--strict", str(EXAMPLES / "shop.toml"))
    assert "fine, 0 warnings" in said
    drawn = run("-m", "blocks", "tree", str(EXAMPLES / "shop.toml"))
    assert [name for name in ("front", "api", "catalog", "stock", "bus", "back_office") if name not in drawn] == []


def test_the_shop_runs_from_its_file(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        broker = str(probe.getsockname()[1])
    free = {"SHOP_PORT": "0", "SHOP_ADMIN": "0", "SHOP_BROKER": broker, "SHOP_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "blocks", "run", str(EXAMPLES / "shop.toml")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | free
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert [ask(url, "/items/7")[1]["path"] for _ in range(2)] == ["/items/7"] * 2
        assert ask(url, "/stock/7")[0] == 200
        told = [ask(url, "/orders", b"1", {"Idempotency-Key": "order-1"}) for _ in range(2)]
        assert [(status, said["duplicate"]) for status, said in told] == [(202, False), (202, True)]
        until = time.monotonic() + 30
        while ask(url, "/handled")[1] != {"billing": ["1"], "notification": ["1"]}:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url: str, path: str, body: bytes | None = None, fields: dict[str, str] | None = None) -> tuple[int, Any]:
    with urlopen(Request(url + path, body, fields or {}), timeout=30) as answer:
        return answer.status, json.load(answer)


def test_the_demo_keeps_its_promises_and_stays_up_when_asked_to():
    command = [sys.executable, "-u", str(EXAMPLES / "demo.py"), "--seconds", "10", "--keep"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "curl -i http" in line:
                break
        text = "".join(said)
        assert text.count("  kept   ") == 9, text
        assert "BROKEN" not in text
        url = said[-1].rpartition(" ")[2].strip()
        assert ask(url, "")[1] == {"item": "1", "price": "2"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.terminate()  # it ends what it has started
        process.wait(60)
        process.stdout.close()
