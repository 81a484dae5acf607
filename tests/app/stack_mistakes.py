"""A right stack, and mistakes to seed into it: what is replaced, by what («: where the complaint must stand), and what it must say."""

from __future__ import annotations

from typing import NamedTuple

MARK = "«"

RIGHT = """\
[process]
workers = 1
drain_timeout = "10s"
admin = "127.0.0.1:9090"

[servers.public]
listen = "127.0.0.1:8080"
handler = "front"
max_connections = 1000
max_body = "1MiB"

[servers.hello]
listen = ["127.0.0.1:8081", "unix:/run/hello.sock"]
handler = "hello"

[edges.front]
origin = "api"
memory = "64MiB"
store = "cache"
rules = [{ path = "/static/", ttl = "1d" }]

[[gateways.api.routes]]
path = "/users/{id:int}"
methods = ["GET"]
service = "users"
timeout = "20s"
limit = "each"

[[gateways.api.routes]]
path = "/orders"
methods = ["POST"]
publish = { to = "events", topic = "orders.new" }

[gateways.api.limits.each]
rate = "100/s"
per = "ip"

[balancers.users]
upstreams = ["users-a", "http://127.0.0.1:9002"]
policy = "p2c"
health = { path = "/healthz", interval = "2s", timeout = "1s" }
retries = { tries = 3, per_try = "2s" }
timeout = "10s"
max_requests = 100
queue = { size = 100, timeout = "2s" }

[upstreams.users-a]
url = "http://127.0.0.1:9001"
timeout = "3s"
connect_timeout = "1s"

[brokers.events]
data = "log"
listen = "127.0.0.1:7400"
durability = "fsync"

[apps.hello]
python = "json:dumps"
"""


class Mistake(NamedTuple):
    """``old`` becomes ``new``, in which « stands where the complaint must; ``says`` is a pattern of its message."""

    name: str
    old: str
    new: str
    says: str
    level: str = "error"


def _more(table: str) -> tuple[str, str]:
    """A table at the end of the file."""
    return RIGHT[-len('python = "json:dumps"\n') :], 'python = "json:dumps"\n' + table


E = "error"
W = "warning"
MISTAKES = [
    # syntax and filling
    Mistake("syntax", "workers = 1", "workers = «", "Invalid value"),
    Mistake("unclosed", 'listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:8080«', "Illegal character|Unterminated|Expected"),
    Mistake("key twice", "workers = 1", "workers = 1\nworkers = 2«", "overwrite"),
    Mistake("variable not set", 'handler = "front"', '«handler = "${NOBODY_SET_THIS}"', "NOBODY_SET_THIS is not set"),
    Mistake("file not there", 'url = "http://127.0.0.1:9001"', '«url = "${file:no-such}"', "cannot be read"),
    # unknown keys
    Mistake("unknown kind", "[servers.hello]", "«[server.hello]", "unknown table 'server'; did you mean 'servers'"),
    Mistake("unknown key", 'handler = "front"', 'handler = "front"\n«max_conections = 5', "did you mean 'max_connections'"),
    Mistake("unknown key of an upstream", 'timeout = "3s"', '«timout = "3s"', "did you mean 'timeout'"),
    Mistake("unknown key deep inside", 'interval = "2s"', '«intervall = "2s"', "did you mean 'interval'"),
    Mistake("unknown key of a route", 'limit = "each"', '«limits = "each"', "unknown key 'limits'; did you mean 'limit'"),
    Mistake("missing key", 'data = "log"\n', "", "the key 'data' is missing"),
    # types and quantities
    Mistake("wrong type", "workers = 1", '«workers = "two"', "expected int"),
    Mistake("out of range", "workers = 1", "«workers = 0", ">= 1"),
    Mistake("no duration", 'drain_timeout = "10s"', '«drain_timeout = "30x"', "'30x' is not a duration"),
    Mistake("no duration in a list", 'ttl = "1d"', '«ttl = "tomorrow"', "'tomorrow' is not a duration"),
    Mistake("no size", 'max_body = "1MiB"', '«max_body = "5 potatoes"', "is not a size"),
    Mistake("no rate", 'rate = "100/s"', '«rate = "100 or so"', "rate"),
    Mistake("not one of", 'durability = "fsync"', '«durability = "always"', "always|Invalid enum"),
    Mistake("no policy", 'policy = "p2c"', '«policy = "round-robbin"', "did you mean 'round-robin'"),
    Mistake("no address", 'listen = "127.0.0.1:8080"', '«listen = "127.0.0.1"', "is not an address"),
    Mistake("no port", 'listen = "127.0.0.1:8080"', '«listen = "127.0.0.1:99999"', "is not an address"),
    Mistake("no URL", 'url = "http://127.0.0.1:9001"', '«url = "127.0.0.1:9001"', "did you mean http://127.0.0.1:9001"),
    Mistake("no path of a probe", 'path = "/healthz"', '«path = "healthz"', "begins with /"),
    Mistake("table for a name", 'handler = "front"', '«handler = { name = "front" }', "expected str"),
    # references
    Mistake("no handler", 'handler = "front"', '«handler = "frnt"', "no handler 'frnt'; did you mean 'front'"),
    Mistake("no upstream", '"users-a", ', '«"user-a", ', "no handler 'user-a'; did you mean 'users-a'"),
    Mistake("no origin", 'origin = "api"', '«origin = "apo"', "no handler 'apo'; did you mean 'api'"),
    Mistake("no service", 'service = "users"', '«service = "usrs"', "no service named 'usrs'; did you mean 'users'"),
    Mistake("no broker", 'publish = { to = "events"', 'publish = { «to = "event"', "did you mean 'events'"),
    Mistake("no limit", 'limit = "each"', '«limit = "ech"', "no limit named 'ech'"),
    Mistake("an address for a name", '"users-a", ', '«"127.0.0.1:9001", ', "no handler '127.0.0.1:9001'; did you mean 'http://"),
    Mistake("a circle", 'upstreams = ["users-a"', 'upstreams = ["users-a", «"front"', "circle: front → api → users → front"),
    Mistake("asks itself", '"http://127.0.0.1:9002"', '«"http://127.0.0.1:8080"', r"is \[servers.public\] itself"),
    Mistake("a name twice", *_more('\n[balancers.hello]\nupstreams = ["http://127.0.0.1:1"]\n'), "name 'hello' is taken"),
    # ports
    Mistake("a port twice", 'listen = ["127.0.0.1:8081"', 'listen = [«"127.0.0.1:8080"', r"taken already by \[servers.public\]"),
    Mistake("a port of all", 'listen = ["127.0.0.1:8081"', 'listen = [«"0.0.0.0:8080"', "taken already as 127.0.0.1:8080"),
    Mistake("the admin's port", 'admin = "127.0.0.1:9090"', '«admin = "localhost:8081"', r"by \[servers.hello\]"),
    Mistake("a broker's port", 'listen = "127.0.0.1:7400"', '«listen = "127.0.0.1:8080"', r"by \[servers.public\]"),
    Mistake("an open admin", 'admin = "127.0.0.1:9090"', '«admin = "0.0.0.0:9090"', "give admin_token_file"),
    Mistake("an open broker", 'listen = "127.0.0.1:7400"', '«listen = "0.0.0.0:7400"', "token.file"),
    # files and Python
    Mistake("no certificate", "max_connections = 1000", 'tls = { «cert = "no.pem", key = "is.pem" }', "'no.pem' cannot be read"),
    Mistake("no PEM", "max_connections = 1000", 'tls = { «cert = "is.pem", key = "is.pem" }', "is not a PEM file"),
    Mistake("no token file", 'data = "log"', 'data = "log"\n«token_file = "no.toml"', "no.toml"),
    Mistake("a short token", "workers = 1", 'workers = 1\n«admin_token_file = "is.pem"', "at least 16"),
    Mistake("no folder for a log", "max_connections = 1000", '«access_log = "logs/no/a.log"', "there is no folder"),
    Mistake("no module", 'python = "json:dumps"', '«python = "jsonn:dumps"', "No module named 'jsonn'"),
    Mistake("no attribute", 'python = "json:dumps"', '«python = "json:dmps"', "has no attribute 'dmps'"),
    Mistake("nothing to call", 'python = "json:dumps"', '«python = "json:__doc__"', "not callable"),
    Mistake("no gateway's file", *_more('\n[gateways.more]\n«file = "no.toml"\n'), "no.toml"),
    # sense that is an error
    Mistake("a folder twice", 'data = "log"', '«data = "./cache"', r"used already by \[edges.front\]"),
    Mistake("a folder in another", 'data = "log"', '«data = "cache/log"', "inside each other"),
    Mistake("an upstream twice", '"http://127.0.0.1:9002"]', '"http://127.0.0.1:9002", «"users-a"]', "there (already|twice)"),
    Mistake("no upstreams", 'upstreams = ["users-a", "http://127.0.0.1:9002"]', "«upstreams = []", "needs (at least one )?upstream"),
    Mistake("a broker in two processes", "workers = 1", "workers = 2", "lives in one process"),
    # sense that is doubtful
    Mistake("a long drain", 'drain_timeout = "10s"', '«drain_timeout = "5m"', "5m is longer than systemd waits", W),
    Mistake("a slow probe", 'timeout = "1s" }', '«timeout = "2s" }', "a probe may take 2s", W),
    Mistake("a long try", 'per_try = "2s"', '«per_try = "20s"', "all of them together get 10s", W),
    Mistake("too many tries", "tries = 3", "«tries = 6", "6 tries of 2s take 12s", W),
    Mistake("a long wait", 'size = 100, timeout = "2s"', 'size = 100, «timeout = "10s"', "gets only 10s altogether", W),
    Mistake("slow to connect", 'connect_timeout = "1s"', '«connect_timeout = "4s"', "longer than the answer may", W),
    Mistake("a timeout inside", 'timeout = "3s"', '«timeout = "30s"', r"\[balancers.users\] gives up after 10s", W),
    Mistake("a short route", 'timeout = "20s"', '«timeout = "2s"', "the route gives up after 2s", W),
    Mistake("POST again", "tries = 3,", 'tries = 3, methods = ["GET", «"POST"],', "POST is not idempotent", W),
    Mistake("404 again", "tries = 3,", "tries = 3, statuses = [502, «404],", "404 is the client's mistake", W),
    Mistake("alone", 'upstreams = ["users-a", "http://127.0.0.1:9002"]', 'upstreams = ["users-a"]', "there is one upstream", W),
    Mistake("blind", 'policy = "p2c"\nhealth = { path = "/healthz", interval = "2s", timeout = "1s" }', "«outlier = false", "dead upstream", W),
    Mistake("never so many", "max_requests = 100", "«max_requests = 1000", "2 × 1000 requests are never under way", W),
    Mistake("never so long a line", "size = 100", "«size = 5000", "5000 never wait", W),
    Mistake("no TTL and a store", 'store = "cache"', 'store = "cache"\n«default_ttl = 0', "0 with a store", W),
    Mistake("a small store", 'store = "cache"', 'store = "cache"\n«store_size = "8MiB"', "smaller than memory", W),
    Mistake("TTL 0", 'ttl = "1d" }]', '«ttl = 0 }]', "0 stores what is never fresh", W),
    Mistake("a hidden rule", "rules = [", 'rules = [{ path = "/st" }, ', "is never looked at", W),
    Mistake("everybody purges", 'memory = "64MiB"', 'memory = "64MiB"\nallow_purge = [«"0.0.0.0/0"]', "everybody may purge", W),
    Mistake("nothing to sync", 'data = "log"', 'data = ":memory:"', "kept nowhere", W),
    Mistake("no interval", 'durability = "fsync"', 'durability = "fsync"\n«interval = "1s"', "counts only with durability", W),
    Mistake("nobody asks", *_more('\n«[upstreams.old]\nurl = "http://127.0.0.1:9999"\n'), "nothing serves or asks", W),
    Mistake("a hidden route", *_more('[[gateways.api.routes]]\npath = "/users/{n:int}"\nmethods = ["GET"]\nservice = "users"\n'), "route", ""),
    Mistake("a size of no store", 'store = "cache"', '«store_size = "8GiB"', "no second tier without store", W),
    Mistake("a format of no log", "max_connections = 1000", '«access_log_format = "combined"', "no access log without", W),
    Mistake("a path of no request", 'health = {', 'health = { mode = "tcp",', "a probe only connects", W),
    Mistake("a certificate unseen", 'connect_timeout = "1s"', "tls = { «verify = false }", "whoever is in between", W),
    Mistake("a body that never comes", 'limit = "each"', 'accept = { «max_body = "2MiB" }\nlimit = "each"', "2097152 bytes never come", W),
    Mistake("an unreachable route", 'limit = "each"', 'limit = "each"\nweight = 0', "its weight is 0, so it is never taken", W),
    Mistake("limits counted twice", "workers = 1", "workers = 2", "counts it by itself", W),
]  # fmt: skip

KINDS = ("process", "servers", "upstreams", "balancers", "edges", "gateways", "brokers", "apps")
