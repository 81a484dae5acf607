"""CPU µs per request of ``blocks edge`` beside nginx, Varnish, Traffic Server and Squid, in turn in one run.

Each cache is one process on core 0 (Varnish: its child); wrk and the origin (nginx) are on core 1. A round takes every cache once;
the figures are medians over the rounds and the ratios are taken within a round, so that a machine whose speed drifts does not matter.

    python benchmarks/edge.py [--rounds 5] [--seconds 2] [--rows hit-1k,hit-64k] [--peers nginx,varnish] [--memory]
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from harness import (
    LOAD,
    PEERS,
    Processes,
    Result,
    arguments,
    fields,
    free_port,
    in_turn,
    installed,
    resident,
    table,
    wait_for,
)

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


class Bench(Processes):
    """The caches, and the origin behind them."""

    def __init__(self, folder: str | None) -> None:
        super().__init__(folder)
        self.origin = free_port()
        self.tag = 0

    def start_origin(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        locations = ""
        for name, size in (("1k", 1024), ("64k", 65536), ("1m", 1048576)):
            (www / name).write_bytes(os.urandom(size // 2).hex().encode())
            locations += f"location /{name}/ {{ try_files /{name} =404; add_header Cache-Control max-age=3600; }}\n"
        self.nginx(
            LOAD, "origin",
            f"open_file_cache max=10; default_type text/plain; root {www};\n"
            f"server {{ listen 127.0.0.1:{self.origin} backlog=4096; {locations} }}",
        )  # fmt: skip
        wait_for(self.origin)

    def start_blocks(self, port: int, row: Row) -> int:
        flags = [flag.format(folder=self.folder) for flag in row.flags]
        log = ["--access-log", str(self.folder / "access.log")] if row.log else []
        origin = f"http://127.0.0.1:{self.origin}"
        return self.blocks("edge", "--listen", f"127.0.0.1:{port}", "--origin", origin, *flags, *log)

    def start_nginx(self, port: int, row: Row, sendfile: str = "on") -> int:
        log = f"access_log {self.folder}/nginx.log combined buffer=64k flush=1s;" if row.log else ""
        return self.nginx(
            PEERS, f"cache{port}",
            f"proxy_cache_path {self.folder}/cache{port} levels=1:2 keys_zone=c:64m max_size=1g inactive=1h use_temp_path=off;\n"
            f"upstream o {{ server 127.0.0.1:{self.origin}; keepalive 128; keepalive_requests 100000000; }}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://o; proxy_http_version 1.1;\n"
            f'proxy_set_header Connection ""; proxy_set_header Host $host; proxy_cache c; proxy_cache_key $host$request_uri;\n'
            f"add_header X-Cache $upstream_cache_status; }} }}",
            log=log, sendfile=sendfile,
        )  # fmt: skip

    def start_nginx_nosendfile(self, port: int, row: Row) -> int:
        return self.start_nginx(port, row, "off")

    def start_varnish(self, port: int, row: Row) -> int:
        return self.spawn(
            PEERS, "varnishd", "-F", "-j", "none", "-n", str(self.folder / f"varnish{port}"), "-a", f"127.0.0.1:{port}",
            "-b", f"127.0.0.1:{self.origin}", "-s", "malloc,256m",
        )  # fmt: skip

    def start_trafficserver(self, port: int, row: Row) -> int:
        home = self.folder / f"ats{port}"
        for name in ("etc", "run", "cache", "log", "share"):
            (home / name).mkdir(parents=True)
        shutil.copytree("/etc/trafficserver", home / "etc", dirs_exist_ok=True)
        places = {
            "prefix": home,
            "exec_prefix": home,
            "bindir": "/usr/bin",
            "sbindir": "/usr/sbin",
            "sysconfdir": home / "etc",
        }
        places |= {
            "datadir": home / "share",
            "includedir": "/usr/include",
            "libdir": "/usr/lib",
            "localstatedir": home / "run",
        }
        places |= {"libexecdir": "/usr/lib/trafficserver/modules", "runtimedir": home / "run", "logdir": home / "log"}
        places |= {"cachedir": home / "cache"}
        (home / "runroot.yaml").write_text("".join(f"{name}: {place}\n" for name, place in places.items()))
        settings = {
            "http.server_ports STRING": port, "exec_thread.autoconfig INT": 0, "exec_thread.limit INT": 1, "accept_threads INT": 0,
            "log.logging_enabled INT": 0, "admin.user_id STRING": "#-1", "cache.ram_cache.size INT": 256 << 20,
        }  # fmt: skip
        records = "".join(f"CONFIG proxy.config.{name} {value}\n" for name, value in settings.items())
        (home / "etc" / "records.config").write_text(records)
        (home / "etc" / "remap.config").write_text(f"map / http://127.0.0.1:{self.origin}/\n")
        (home / "etc" / "storage.config").write_text(f"{home}/cache 1G\n")
        return self.spawn(PEERS, "traffic_server", f"--run-root={home}/runroot.yaml")

    def start_squid(self, port: int, row: Row) -> int:
        home = self.folder / f"squid{port}"
        home.mkdir()
        home.chmod(0o777)  # it gives up root
        path = home / "squid.conf"
        path.write_text(
            f"http_port 127.0.0.1:{port} accel defaultsite=x\n"
            f"cache_peer 127.0.0.1 parent {self.origin} 0 no-query no-digest originserver name=o\n"
            "http_access allow all\ncache_peer_access o allow all\ncache_mem 256 MB\nmaximum_object_size_in_memory 4 MB\n"
            f"access_log none\ncache_log {home}/log\npid_filename {home}/pid\ncoredump_dir {home}\nmemory_cache_shared off\n"
            "shutdown_lifetime 1 seconds\n"
        )
        return self.spawn(PEERS, "squid", "-N", "-n", f"bench{port}", "-f", str(path))

    def wrk(self, pid: int, port: int, connections: int, seconds: float, script: str) -> tuple[int, Result]:
        self.tag += 1
        lua = f"{fields(HEADERS)}\nlocal n, tag = 0, 't{self.tag}-'\nrequest = function() {script} end\n"
        return self.load(pid, port, connections, seconds, lua)

    def measure(self, peer: str, row: Row, seconds: float) -> Result:
        pid, port = self.start(peer, row)
        try:
            if row.warm:
                self.wrk(pid, port, row.connections, 1.5, row.warm)
            return self.wrk(pid, port, row.connections, seconds, row.script)[1]
        finally:
            self.stop(pid)
            for left in ("store", *(f"{name}{port}" for name in ("cache", "ats", "squid", "varnish"))):
                shutil.rmtree(self.folder / left, ignore_errors=True)


def memory_per_entry(bench: Bench) -> None:
    """Bytes that an entry costs beside its body of 1 KiB."""
    pid, port = bench.start("blocks", Row(32, "", flags=("--memory", "1GiB")))
    try:
        bench.wrk(pid, port, 32, 0.5, NEXT % "1k")
        before = resident(pid)
        done, _ = bench.wrk(pid, port, 32, 8, NEXT % "1k")
        each = (resident(pid) - before) / done
        print(f"memory: {done} entries of 1 KiB cost {each:.0f} B each, {each - 1024:.0f} B beside the body")
    finally:
        bench.stop(pid)


def main() -> None:
    parser = arguments(__doc__, ROWS, "nginx,nginx-nosendfile,varnish,trafficserver,squid")
    parser.add_argument("--memory", action="store_true", help="also measure the memory of an entry")
    parser.add_argument("--folder", help="where disk caches are, such as /dev/shm: nobody waits for a disk then")
    options = parser.parse_args()
    peers = ["blocks", *installed(options.peers)]
    bench = Bench(options.folder)
    try:
        bench.start_origin()
        for name in filter(None, options.rows.split(",")):
            measure = lambda peer, row=ROWS[name]: bench.measure(peer, row, options.seconds)  # noqa: E731
            table(name, in_turn(peers, options.rounds, measure), "blocks")
        if options.memory:
            memory_per_entry(bench)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
