"""``blocks bench`` and ``blocks fault`` as they are called."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from blocks.testing.cli import bench, fault

BOTH = "import click; from blocks.testing.cli import bench, fault; click.Group(commands={'bench': bench, 'fault': fault})()"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["127.0.0.1:80"], "did you mean http://127.0.0.1:80?"),
        (["http://a", "--rate", "0"], "a load of '0' is none"),
        (["http://a", "--duration", "soon"], "is not a duration"),
        (["http://a", "--expect", "p99"], "is no objective"),
        (["http://a", "--expect", "q<1"], "there is no figure 'q'"),
        (["http://a", "-H", "nonsense"], "is no header"),
        (["http://a", "--concurrency", "2", "--rate", "5"], "goes with neither"),
    ],
)
def test_bad_usage_is_exit_2_and_says_what_is_wrong(arguments: list[str], says: str):
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.parametrize(
    ("target", "rule", "says"),
    [
        ("127.0.0.1:9", "next 1 path /x: reset", "no method, path or header"),
        ("127.0.0.1:9", "next 1: status 503", "is for requests"),
        ("http://127.0.0.1:9", "next 1: frob", "there is no fault 'frob'"),
        ("nowhere", "next 1: reset", "is not an address"),
    ],
)
def test_a_fault_that_could_never_strike_is_exit_3(target: str, rule: str, says: str):
    done = CliRunner().invoke(fault, [target, "--fault", rule])
    assert (done.exit_code, says in done.output) == (3, True), done.output


@pytest.mark.integration
def test_bench_measures_and_judges(blocks_sync, tmp_path: Path):
    origin = blocks_sync.origin("hello")
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    command = [sys.executable, "-c", BOTH, "bench", origin.url + "/x", "--rate", "100", "--duration", "500ms"]
    done = subprocess.run(
        [*command, "--json", str(figures), "--report", str(report), "--expect", "errors=0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 of 50 intended" in done.stdout
    found = json.loads(figures.read_text())
    assert (found["requests"], found["statuses"], found["errors"]) == (50, {"200": 50}, {})
    assert "<svg" in report.read_text()
    assert set(origin.journal.paths) == {"/x"}
    origin.fault.next(3).status(500)
    done = subprocess.run([*command, "--expect", "errors=0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "errors =0: it was 3" in done.stderr


@pytest.mark.integration
def test_the_fault_proxy_hits_the_next_two_and_no_other(blocks_sync):
    origin = blocks_sync.origin("hello")
    process = subprocess.Popen(
        [sys.executable, "-c", BOTH, "fault", origin.url, "--fault", "next 2: status 503", "--control", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        url, control = f"http://{ready['listen'][0]}/", f"http://{ready['control'][0]}"
        assert [_status(url) for _ in range(4)] == [503, 503, 200, 200]
        assert _status(f"{control}/arm", b"next 1: status 418\nafter 1, next 1: status 429") == 200
        assert [_status(url) for _ in range(4)] == [418, 200, 429, 200]
        assert _status(f"{control}/arm", b"next x: reset") == 400
        with urllib.request.urlopen(f"{control}/faults", timeout=30) as response:
            armed = json.load(response)["armed"]
        assert [rule["hits"] for rule in armed] == [[1, 2], [5], [7]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _status(url: str, data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(url, data, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
