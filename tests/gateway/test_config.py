from __future__ import annotations

import json
import string
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.config.complaint import ConfigErrors
from blocks.core.config.places import places_of
from blocks.core.config.report import report, report_error
from blocks.gateway import Gateway
from blocks.gateway.config.compare import compare
from blocks.gateway.config.load import Loaded, Objects, load
from blocks.http.message import Peer, Request, Response

GOOD = """
[gateway]
trusted = ["10.0.0.0/8"]

[services.hello]
respond = { status = 200, body = "hello" }

[limits.api]
rate = "2/h"
per = "ip"
tiers = { gold = "10/h" }

[[routes]]
path = "/hello/{name}"
service = "hello"
methods = ["GET"]
limit = ["api", "100/s"]

[[routes]]
path = "/old"
respond = { status = 410 }
sunset = 2026-12-31
"""


def write(folder: Path, text: str, name: str = "gateway.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def wrong(folder: Path, text: str, **options: Any) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigErrors) as caught:
        load(path, environment={}, **options)
    shown = report_error(caught.value, "g.toml")
    return [line for line in shown.split("\n") if line.startswith("g.toml")]


async def test_a_file_becomes_a_gateway(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, GOOD), clock=FakeClock())
    assert loaded.warnings == []
    app = Gateway.of(loaded.snapshot)
    answers = [(await app(Request("GET", "/hello/ann", {"host": "a"}))).status for _ in range(3)]
    assert answers == [200, 200, 429]
    gone = await app(Request("GET", "/old", {"host": "a"}))
    assert (gone.status, gone.headers["sunset"]) == (410, "Thu, 31 Dec 2026 00:00:00 GMT")


async def test_limits_go_on_counting_through_a_reload(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Gateway.of(load(write(tmp_path, GOOD), clock=clock).snapshot)
    request = Request("GET", "/hello/ann", {"host": "a"})
    assert (await first(request)).status == 200
    second = load(write(tmp_path, GOOD.replace("hello/{name}", "hello/{who}")), clock=clock, kept=first.kept)
    first.swap(second.snapshot)
    assert [(await first(request)).status for _ in range(2)] == [200, 429]


async def test_a_country_is_believed_from_trusted_proxies_only(tmp_path: Path) -> None:
    text = GOOD.replace("[gateway]", '[gateway]\ncountry_field = "x-country"').replace('per = "ip"', 'per = "country"')
    app = Gateway.of(load(write(tmp_path, text), clock=FakeClock()).snapshot)

    async def status(country: str, peer: str) -> int:
        request = Request("GET", "/hello/ann", {"host": "a", "x-country": country}, peer=Peer((peer, 1)))
        return (await app(request)).status

    assert [await status("DE", "10.0.0.1") for _ in range(3)] == [200, 200, 429]
    assert await status("FR", "10.0.0.1") == 200
    assert [await status(f"X{number}", "192.0.2.1") for number in range(3)] == [200, 200, 429], (
        "a client's own word is not heard"
    )


def test_one_mistake_does_not_hide_the_others_of_its_table(tmp_path: Path) -> None:
    lines = wrong(
        tmp_path,
        """[gateway]
trustd = []
auth = "mian"
trusted = ["10.0.0.0/33"]
[auth.main]
type = "api-key"
[services.orders]
urll = "http://127.0.0.1:1"
[services.users]
url = "http://127.0.0.1:1"
[limits.slow]
per = "ip"
[[routes]]
path = "/orders/{id:itn}"
methods = []
timeout = "5 parsecs"
service = "oders"
limit = ["slow", "10/h per param:id", "fast"]
[[routes]]
path = "/users"
service = "orders"
weight = "much"
[[routes]]
service = "users"
limit = "9/eon"
""",
    )
    places = [line.split(": error: ")[0].removeprefix("g.toml:").split(":")[0] for line in lines]
    assert sorted(places, key=int) == ["2", "3", "4", "8", "11", "14", "15", "16", "17", "18", "22", "23", "25"], lines


def test_what_was_taken_out_is_not_missed(tmp_path: Path) -> None:
    lines = wrong(tmp_path, '[[routes]]\npath = "/"\nheaders = 3\nrespond = 4\n')
    assert [line.split(":")[1] for line in lines] == ["3", "4"]


def test_a_wrong_limit_is_said_once_and_at_its_place(tmp_path: Path) -> None:
    lines = wrong(
        tmp_path,
        """[limits.api]
rate = "5/fortnight"
per = "consumr"
[limits.two]
rate = "5/s"
per = "ipp+claim:"
[[routes]]
path = "/a"
respond = {}
limit = ["api", "two"]
[[routes]]
path = "/b"
respond = {}
limit = "two"
""",
    )
    assert [line.split(":")[1] for line in lines] == ["2", "3", "6", "6"]
    assert "did you mean 'consumer'" in lines[1]


def test_all_mistakes_of_identity_are_said_at_once(tmp_path: Path) -> None:
    lines = wrong(
        tmp_path,
        """[auth.tokens]
type = "jwt"
secret = "a secret of thirty-two bytes and more"
leeway = "1 parsec"
max_token = "8KiBB"
verifications = "many"
isuer = "x"
[auth.keys]
type = "api-key"
keys = {"plain" = "ann",
  "other" = "bob"}
[auth.words]
type = "basic"
users = {ann = "clear"}
failures = "few"
[auth.mtls]
type = "mtls"
names = {"XX:ann" = "ann"}
[auth.signed]
type = "signature"
covered = ["@nothing"]
[auth.short]
type = "jwt"
secret = "short"
[consumers.ann]
keys = ["clear"]
tierr = "x"
certificates = ["foo"]
[consumers.bob]
keys = [{hash = "clear",
  until = 2027-01-01T00:00:00}]
secrets = {k = "short"}
password = ["clear"]
groups = 4
[[routes]]
path = "/a"
respond = {}
auth = ["tokens", "keys", "words", "mtls", "signed", "short"]
""".replace(",\n", ", "),  # an inline table has one line
    )
    places = [line.split(": error: ")[0].removeprefix("g.toml:").split(":")[0] for line in lines]
    assert places == [
        "4",
        "5",
        "6",
        "7",
        "10",
        "13",
        "14",
        "17",
        "20",
        "23",
        "25",
        "26",
        "27",
        "29",
        "29",
        "30",
        "31",
        "32",
    ], lines
    assert all("clear" not in line.partition("error:")[2].partition("never in clear")[0] for line in lines)


STEPS = """[redis]
url = "http://x"
timeout = "1 parsec"
[[routes]]
path = "/a/{id}"
respond = {}
accept = {max_body = "1 parsec", typs = 1}
[[routes]]
path = "/b/{id}"
publish = {to = "blocks://h:1", topic = "{nope}", key = "{none}", timeout = "x", max_body = "y"}
[[routes]]
path = "/c/{id}"
subscribe = {source = "blocks://h:1", topic = "{nope}", keep_alive = "x"}
[[routes]]
path = "/d/{id}"
respond = {}
idempotency = {store = "disc:x", ttl = "x", on_error = "pss"}
shed = {target = "x", priority = "none"}
[[routes]]
path = "/e/{id}"
[routes.compose]
deadline = "x"
[routes.compose.branches.a]
service = "nope"
path = "/"
mode = "optoinal"
[[routes]]
path = "/f/{id}"
respond = {}
transform = {path = "/{nope}", query = {set = {a = "{nope}"}}, headers = {remove = ["a b"]}}
cors = {origins = ["nope"], max_age = "x", methods = ["a b"]}
access = {allow = ["1.2.3"], deny = ["x"]}
validate = {schema = {type = "nope"}, max_body = "x", response_mode = "enforc"}
canary = {service = "nope", share = 5}
pagination = {offer = "curser", items = "items"}
limit = ["1/s per nope", "2/x"]
deprecated = "x"
sunset = "y"
scopes = 3
claims = 4
"""


def test_all_that_is_wrong_with_a_routes_steps_is_said_at_its_place(tmp_path: Path) -> None:
    lines = wrong(tmp_path, STEPS)
    places = Counter(int(line.split(":")[1]) for line in lines)
    assert places == {
        2: 1, 3: 1, 7: 2, 10: 4, 13: 2, 17: 3, 18: 2, 22: 1, 24: 1, 26: 1,
        30: 3, 31: 3, 32: 2, 33: 3, 34: 1, 35: 1, 36: 2, 37: 1, 38: 1, 39: 1, 40: 1,
    }, lines  # fmt: skip
    assert sum("did you mean" in line for line in lines) == 5, "types, pass, optional, enforce, cursor"
    columns = [line.split(":")[2] for line in lines if line.startswith("g.toml:10:")]
    assert columns == ["33", "51", "67", "82"], "each key of a table in one line has its column"


def test_everything_that_is_wrong_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    lines = wrong(
        tmp_path,
        """[gateway]
trusetd = []
[services.a]
url = "htp://x"
timeout = "soon"
[limits.api]
rate = "9/eon"
[[routes]]
path = "/a/{id:int"
service = "a"
[[routes]]
path = "/b"
service = "nope"
limit = ["10/s",
   "5/zz"]
cors = { origin = ["*"] }
[[routes]]
path = "/c"
[[routes]]
path = "/d"
respond = { stats = 3 }
limits = "1/s"
""",
    )
    places = [(line.split(": ")[0], line.split(": ", 2)[2]) for line in lines]
    expected = [
        ("g.toml:2:1", "did you mean 'trusted'"),
        ("g.toml:4:1", "must be http"),
        ("g.toml:5:1", "not a duration"),
        ("g.toml:7:1", "not a rate"),
        ("g.toml:9:1", "not a parameter"),
        ("g.toml:13:1", "there is no service named 'nope'"),
        ("g.toml:15:4", "not a rate"),
        ("g.toml:16:1", "the key 'origins' is missing"),
        ("g.toml:16:10", "did you mean 'origins'"),
        ("g.toml:17:1", "exactly one of"),
        ("g.toml:21:13", "did you mean 'status'"),
        ("g.toml:22:1", "did you mean 'limit'"),
    ]
    assert len(places) == len(expected)
    for (place, words), (where, what) in zip(places, expected, strict=True):
        assert place == where
        assert what in words


def test_a_syntax_error_has_its_place(tmp_path: Path) -> None:
    [line] = wrong(tmp_path, '[gateway]\ntrusted = ["a"\n\n[[routes]]\n')
    assert line.startswith("g.toml:4:")
    [line] = wrong(tmp_path, "[gateway]\nauth = \n")
    assert line.startswith("g.toml:2:8: error:")


def test_two_routes_for_the_same_requests_are_an_error(tmp_path: Path) -> None:
    text = '[[routes]]\npath = "/a/{x}"\nrespond = {}\n[[routes]]\npath = "/a/{y}"\nrespond = {}\n'
    [line] = wrong(tmp_path, text)
    assert line.startswith("g.toml:4:1: error: routes '/a/{x}' and '/a/{y}' take the same requests")


def test_unreachable_routes_and_unused_tables_are_warnings(tmp_path: Path) -> None:
    loaded = load(
        write(
            tmp_path,
            """
[services.unused]
respond = {}
[[routes]]
path = "/a"
methods = ["GET", "POST"]
respond = {}
weight = 1
[[routes]]
path = "/a"
methods = ["GET"]
headers = { x = "1" }
respond = {}
[[routes]]
path = "/a"
methods = ["GET"]
headers = { y = "1" }
respond = {}
[[routes]]
path = "/b"
weight = 0
respond = {}
""",
        )
    )
    shown = report(loaded.warnings, loaded.source, "g")
    assert "nothing uses [services.unused]" in shown
    assert "the order of the file decides" in shown
    assert "its weight is 0" in shown


def test_a_route_that_another_takes_first_is_told(tmp_path: Path) -> None:
    text = """
[[routes]]
path = "/a"
methods = ["GET", "POST"]
respond = {}
[[routes]]
path = "/a"
methods = ["GET", "POST"]
headers = { x = "1" }
respond = {}
[[routes]]
path = "/a"
methods = ["POST", "GET"]
query = { q = true }
headers = { x = "1" }
respond = {}
"""
    assert load(write(tmp_path, text)).warnings == []


def test_variables_and_files_fill_strings(tmp_path: Path) -> None:
    write(tmp_path, "from-file\n", "body.txt")
    text = '[[routes]]\npath = "/"\nrespond = { body = "${A} ${B:-b} ${file:body.txt} $$5 $x" }\n'
    loaded = load(write(tmp_path, text), environment={"A": "a"})
    assert loaded.source.tables["routes"][0]["respond"]["body"] == "a b from-file $5 $x"
    [line] = wrong(tmp_path, text)
    assert line.startswith("g.toml:3:13: error: the environment variable A is not set")


def test_json_and_yaml_are_read_too(tmp_path: Path) -> None:
    tables = {"routes": [{"path": "/", "respond": {"body": "x"}}]}
    assert len(load(write(tmp_path, json.dumps(tables), "g.json")).snapshot.lanes) == 1
    assert len(load(write(tmp_path, "routes:\n- path: /\n  respond: {body: x}\n", "g.yaml")).snapshot.lanes) == 1
    with pytest.raises(ConfigErrors):
        load(write(tmp_path, "[", "g.json"))


def test_a_missing_file_is_one_complaint(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot be read"):
        load(tmp_path / "none.toml")


async def test_services_may_be_python_objects_or_given(tmp_path: Path) -> None:
    async def given_service(request: Request) -> Response:
        return Response(204)

    text = '[services.p]\npython = "blocks.gateway.config.load:_nobody"\n[[routes]]\npath = "/p"\nservice = "p"\n'
    text += '[[routes]]\npath = "/g"\nservice = "g"\n'
    loaded = load(write(tmp_path, text), objects=Objects(services={"g": given_service}))
    app = Gateway.of(loaded.snapshot)
    assert (await app(Request("GET", "/g", {"host": "a"}))).status == 204
    assert (await app(Request("GET", "/p", {"host": "a"}))).status == 503
    [line] = wrong(tmp_path, '[services.p]\npython = "nowhere.at:all"\n[[routes]]\npath = "/p"\nservice = "p"\n')
    assert "cannot be loaded" in line


def test_differences_pair_routes_by_name() -> None:
    old = {"limits": {"a": {"rate": "1/s"}}, "routes": [{"path": "/a"}, {"path": "/b", "limit": "1/s"}]}
    new = {"limits": {"a": {"rate": "2/s"}}, "routes": [{"path": "/b", "limit": "9/s"}, {"path": "/c"}]}
    assert [one.line() for one in compare(old, new)] == [
        "- routes./a = {'path': '/a'}",
        "~ routes./b.limit: '1/s' -> '9/s'",
        "+ routes./c = {'path': '/c'}",
        "~ limits.a.rate: '1/s' -> '2/s'",
    ]
    assert compare(old, old) == []


KEYS = st.text(alphabet=string.ascii_letters + "-_ .é\"'", min_size=1, max_size=6)
VALUES = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), st.text(alphabet="ab#[]{}=,'\" \\\n", max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[ # comment ]\n" + ",\n".join(_toml(item) for item in value) + "\n]" if value else "[]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    found = {at} if at else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found |= _paths(item, (*at, key))
    return found


def test_a_difference_shows_no_secret() -> None:
    one = {"auth": {"a": {"secret": "old-one", "leeway": "1s"}}, "redis": {"url": "redis://u:old-one@h"}}
    other = {
        "auth": {"a": {"secret": "new-one", "leeway": "2s"}},
        "redis": {"url": "redis://u:new-one@h"},
        "brokers": {"b": {"token": "new-one"}},
    }
    lines = [found.line() for found in compare(one, other)]
    assert lines == [
        "~ auth.a.leeway: '1s' -> '2s'",
        "~ auth.a.secret: '***' -> '***'",
        "+ brokers = {'b': {'token': '***'}}",
        "~ redis.url: 'redis://***@h' -> 'redis://***@h'",
    ]


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.lists(st.dictionaries(KEYS, VALUES, max_size=2), max_size=3))
def test_every_key_of_any_file_has_its_place(table: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    text = "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items())
    for row in rows:
        text += '\n[[rows."x y"]] # a row\n' + "".join(
            f"{json.dumps(key)} = {_toml(value)}\n" for key, value in row.items()
        )
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # an inline table over two lines, or "rows" twice: not TOML
    places = places_of(text)
    for at in _paths(tables):
        if at == ("rows",) and rows:
            continue  # a part of a header has none of its own
        assert at in places
        if isinstance(at[-1], str):
            line = text.split("\n")[places[at].line - 1]
            assert at[-1] in line or json.dumps(at[-1]) in line


def test_a_thousand_routes_load_quickly_enough_to_be_reloaded_often(tmp_path: Path) -> None:
    text = "[services.s]\nrespond = {}\n" + "".join(
        f'[[routes]]\npath = "/r{number}/{{id:int}}"\nservice = "s"\nlimit = "100/s per ip"\n' for number in range(1000)
    )
    loaded: Loaded = load(write(tmp_path, text))
    assert len(loaded.snapshot.lanes) == 1000
