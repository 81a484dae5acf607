"""CPU µs per request of ``blocks edge`` beside nginx and Varnish, in turn in one run.

Each cache is one process on core 0 (Varnish: its child); wrk and the origin (nginx) are on core 1. A round takes every cache once;
the figures are medians over the rounds and the ratios are taken within a round, so that a machine whose speed drifts does not matter.

    python benchmarks/edge.py [--rounds 5] [--seconds 2] [--rows hit-1k,hit-64k] [--peers nginx,varnish] [--memory]
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
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://shop.example/catalogue/spring",
    "DNT": "1",
    "Sec-GPC": "1",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "Priority": "u=0, i",
}  # with Host fourteen
ZIPF = "local n = math.floor(10000 ^ math.random()); return wrk.format('GET', '/%s/z' .. n)"
NEXT = "n = n + 1; return wrk.format('GET', '/%s/' .. tag .. n)"
ONE = "return wrk.format('GET', '/%s/one')"


@dataclass(frozen=True)
class Row:
    connections: int
    script: str
    warm: str = ""  # what fills the cache before the measurement
    flags: tuple[str, ...] = ()  # of blocks
    log: bool = False


ROWS = {
    "hit-1k": Row(32, ZIPF % "1k", ("n = n + 1; return wrk.format('GET', '/1k/z' .. (n % 10000))")),
    "hit-1k-log": Row(32, ZIPF % "1k", ("n = n + 1; return wrk.format('GET', '/1k/z' .. (n % 10000))"), log=True),
    "hit-64k": Row(32, ONE % "64k", ONE % "64k"),
    "hit-1m": Row(8, ONE % "1m", ONE % "1m"),
    "hit-1m-disk": Row(8, ONE % "1m", ONE % "1m", ("--memory", "1MiB", "--store", "{folder}/store")),
    "miss-1k": Row(32, NEXT % "1k"),
    "miss-64k": Row(32, NEXT % "64k"),
    "miss-1m": Row(8, NEXT % "1m"),
}


@dataclass
class Result:
    rate: float
    cpu: float  # µs a request
    p99: float  # ms
    failed: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
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


def cpu_ticks(pid: int) -> int:
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """The processes of a run, ended by pid when it is over."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="blocks-bench-"))
        self.folder.chmod(0o755)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.origin = free_port()
        self.tag = 0

    def spawn(self, core: int, *command: str) -> int:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.processes.append(process)
        return process.pid

    def stop(self, pid: int) -> None:
        process = next(p for p in self.processes if p.pid == pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.processes.remove(process)

    def close(self) -> None:
        for process in list(self.processes):
            self.stop(process.pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def nginx(self, core: int, name: str, http: str) -> int:
        path = self.folder / f"{name}.conf"
        temporary = " ".join(
            f"{kind}_temp_path {self.folder}/{name}-{kind};"
            for kind in ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
        )
        path.write_text(
            f"user root; worker_processes 1; daemon off; pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.log;\n"
            f"events {{ worker_connections 20000; }}\nhttp {{ keepalive_requests 100000000; {temporary} {http} }}\n"
        )
        return self.spawn(core, "nginx", "-c", str(path))

    def start_origin(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        locations = ""
        for name, size in (("1k", 1024), ("64k", 65536), ("1m", 1048576)):
            (www / name).write_bytes(os.urandom(size // 2).hex().encode())
            locations += f"location /{name}/ {{ try_files /{name} =404; add_header Cache-Control max-age=3600; }}\n"
        self.nginx(
            1, "origin",
            f"access_log off; sendfile on; tcp_nopush on; open_file_cache max=10; default_type text/plain; root {www};\n"
            f"server {{ listen 127.0.0.1:{self.origin} backlog=4096; {locations} }}",
        )  # fmt: skip
        wait_for(self.origin)

    def start(self, peer: str, row: Row) -> tuple[int, int]:
        """(pid, port) of a cache on core 0."""
        port = free_port()
        pid = getattr(self, "start_" + peer.replace("-", "_"))(port, row)
        wait_for(port)
        return pid, port

    def start_blocks(self, port: int, row: Row) -> int:
        flags = [flag.format(folder=self.folder) for flag in row.flags]
        log = ["--access-log", str(self.folder / "access.log")] if row.log else []
        return self.spawn(
            0, sys.executable, "-m", "blocks", "edge", "--listen", f"127.0.0.1:{port}", "--origin", f"http://127.0.0.1:{self.origin}",
            *flags, *log,
        )  # fmt: skip

    def start_nginx(self, port: int, row: Row, sendfile: str = "on") -> int:
        log = f"access_log {self.folder}/nginx.log combined buffer=64k flush=1s;" if row.log else "access_log off;"
        return self.nginx(
            0, f"cache{port}",
            f"{log} sendfile {sendfile}; tcp_nopush on;\n"
            f"proxy_cache_path {self.folder}/cache{port} levels=1:2 keys_zone=c:64m max_size=1g inactive=1h use_temp_path=off;\n"
            f"upstream o {{ server 127.0.0.1:{self.origin}; keepalive 128; keepalive_requests 100000000; }}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://o; proxy_http_version 1.1;\n"
            f'proxy_set_header Connection ""; proxy_set_header Host $host; proxy_cache c; proxy_cache_key $host$request_uri;\n'
            f"add_header X-Cache $upstream_cache_status; }} }}",
        )  # fmt: skip

    def start_nginx_nosendfile(self, port: int, row: Row) -> int:
        return self.start_nginx(port, row, "off")

    def start_varnish(self, port: int, row: Row) -> int:
        return self.spawn(
            0, "varnishd", "-F", "-j", "none", "-n", str(self.folder / f"varnish{port}"), "-a", f"127.0.0.1:{port}",
            "-b", f"127.0.0.1:{self.origin}", "-s", "malloc,256m",
        )  # fmt: skip

    def wrk(self, port: int, connections: int, seconds: float, script: str) -> tuple[int, Result]:
        self.tag += 1
        path = self.folder / "load.lua"
        fields = "\n".join(f"wrk.headers[{name!r}] = {value!r}" for name, value in HEADERS.items())
        path.write_text(f"{fields}\nlocal n, tag = 0, 't{self.tag}-'\nrequest = function() {script} end\n")
        out = subprocess.run(
            ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(path), f"http://127.0.0.1:{port}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        done = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
        amount, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
        failed = sum(
            int(x) for x in re.findall(r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)", out)
        )
        return done, Result(rate, 0.0, float(amount) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], failed)

    def measure(self, peer: str, row: Row, seconds: float) -> Result:
        pid, port = self.start(peer, row)
        try:
            if row.warm:
                self.wrk(port, row.connections, 1.5, row.warm)
            before = cpu_ticks(pid)
            done, result = self.wrk(port, row.connections, seconds, row.script)
            result.cpu = (cpu_ticks(pid) - before) / TICK * 1e6 / max(1, done)
            return result
        finally:
            self.stop(pid)
            for left in ("store", f"cache{port}"):
                shutil.rmtree(self.folder / left, ignore_errors=True)


def memory_per_entry(bench: Bench) -> None:
    """Bytes that an entry costs beside its body of 1 KiB."""
    pid, port = bench.start("blocks", Row(32, "", flags=("--memory", "1GiB")))
    try:
        bench.wrk(port, 32, 0.5, NEXT % "1k")
        before = resident(pid)
        done, _ = bench.wrk(port, 32, 8, NEXT % "1k")
        each = (resident(pid) - before) / done
        print(f"memory: {done} entries of 1 KiB cost {each:.0f} B each, {each - 1024:.0f} B beside the body")
    finally:
        bench.stop(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--peers", default="nginx,nginx-nosendfile,varnish")
    parser.add_argument("--memory", action="store_true", help="also measure the memory of an entry")
    options = parser.parse_args()
    peers = [
        "blocks",
        *(p for p in options.peers.split(",") if p and shutil.which({"varnish": "varnishd"}.get(p, "nginx"))),
    ]
    bench = Bench()
    try:
        bench.start_origin()
        print(f"{'row':<14}{'cache':<18}{'µs/request':>11}{'req/s':>9}{'p99 ms':>9}{'failed':>8}   blocks is (CPU)")
        for name in options.rows.split(","):
            row = ROWS[name]
            found: dict[str, list[Result]] = {peer: [] for peer in peers}
            for _ in range(options.rounds):
                for peer in peers:
                    found[peer].append(bench.measure(peer, row, options.seconds))
            for peer, results in found.items():
                ratio = statistics.median(
                    theirs.cpu / ours.cpu for theirs, ours in zip(results, found["blocks"], strict=True)
                )
                print(
                    f"{name:<14}{peer:<18}{statistics.median(r.cpu for r in results):>11.1f}"
                    f"{statistics.median(r.rate for r in results):>9.0f}{statistics.median(r.p99 for r in results):>9.2f}"
                    f"{sum(r.failed for r in results):>8}" + (f"   {ratio:.2f}x" if peer != "blocks" else ""),
                    flush=True,
                )
        if options.memory:
            memory_per_entry(bench)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
