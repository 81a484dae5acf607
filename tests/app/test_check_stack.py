"""Each seeded mistake is told at its line and column, in its words, and brings no other complaint with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.stack_mistakes import KINDS, MARK, MISTAKES, RIGHT, Mistake
from blocks.app.check import Examined, check, examine
from blocks.app.source import StackErrors
from blocks.app.stack import Stack
from blocks.core.config.complaint import dotted

_ELSEWHERE = {  # where « cannot show the place: the line's text that is underlined
    "missing key": "[brokers.events]",
    "a broker in two processes": "[brokers.events]",
    "limits counted twice": "[gateways.api.limits.each]",
    "alone": "tries = 3",
    "a name twice": "[apps.hello]",
    "an unreachable route": "[[gateways.api.routes]]",
    "nothing to sync": "durability",
}
_TOGETHER = ("a broker in two processes", "limits counted twice")  # workers = 2 is wrong in both ways here
EXAMPLES = Path(__file__).parents[2] / "examples"


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*at, key), *_places(item, (*at, key)))]


TABLES = tomllib.loads(RIGHT)
PLACES = _places(TABLES)


def _changed(tables: Any, changes: list[Any]) -> Any:
    tables = json.loads(json.dumps(tables))
    for at, how, value in changes:
        holder = tables
        for key in at[:-1]:
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):
                break
        else:
            key = at[-1]
            if isinstance(holder, dict) and key in holder:
                old = holder.pop(key)
                if how != "delete":
                    holder[key if how == "replace" else f"{key}x"] = value if how == "replace" else old
            elif isinstance(holder, list) and isinstance(key, int) and key < len(holder):
                holder[key] = value
    return tables


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "is.pem").write_text("x\n")
    (tmp_path / "is.pem").chmod(0o600)
    return tmp_path


def looked_at(folder: Path, text: str, name: str = "stack.toml") -> Examined:
    path = folder / name
    path.write_text(text)
    return examine(path, {})


def rows_of(examined: Examined) -> list[tuple[int, int, str, str]]:
    rows = []
    for one in examined.found:
        place = examined.source.place(one.at)
        assert place is not None
        assert place[1] is not None, one
        rows.append((place[1].line, place[1].column, one.level, one.message))
    return rows


def place_of(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def test_the_right_stack_has_no_complaint(folder: Path) -> None:
    examined = looked_at(folder, RIGHT)
    assert examined.found == []
    assert examined.version is not None
    assert [path.name for path in folder.iterdir() if path.name != "is.pem"] == ["stack.toml"]  # nothing was started


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.name.replace(" ", "-"))
def test_a_mistake_is_told_at_its_place(folder: Path, mistake: Mistake) -> None:
    assert RIGHT.count(mistake.old) >= 1
    text = RIGHT.replace(mistake.old, mistake.new, 1)
    mark = text.find(MARK)
    text = text.replace(MARK, "")
    rows = rows_of(looked_at(folder, text))
    told = [row for row in rows if re.search(mistake.says, row[3])]
    assert told, rows
    if mark >= 0:
        assert told[0][:2] == place_of(text, mark), rows
    elif mistake.name in _ELSEWHERE:
        assert text.split("\n")[told[0][0] - 1][told[0][1] - 1 :].startswith(_ELSEWHERE[mistake.name]), rows
    if mistake.level:
        assert told[0][2] == mistake.level
    if mistake.name not in _TOGETHER:
        assert len(rows) == 1, rows  # it brings no other with it


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_kind_brings_no_other_with_it(folder: Path, kind: str) -> None:
    text = re.sub(rf"^(\[+){kind}\b", rf"\1{kind}x", RIGHT, flags=re.M)
    rows = rows_of(looked_at(folder, text))
    assert [row[3] for row in rows] == [f"unknown table '{kind}x'; did you mean '{kind}'?"]


@pytest.mark.parametrize(
    "at", [at for at in PLACES if isinstance(at[-1], str) and len(at) > 2 and at[-2] != "limits"], ids=dotted
)
def test_a_misspelt_key_brings_no_other_with_it(folder: Path, at: tuple[Any, ...]) -> None:
    tables = _changed(TABLES, [(at, "misspell", None)])
    found = looked_at(folder, json.dumps(tables), "stack.json").found
    assert [one for one in found if one.at != (*at[:-1], f"{at[-1]}x")] == []


# -- many at once, several files, and other formats


def test_all_mistakes_are_told_in_one_run(folder: Path) -> None:
    names = (
        "variable not set", "unknown key of an upstream", "out of range", "no duration", "no size", "no rate", "no policy",
        "the admin's port", "no module", "a slow probe", "404 again", "TTL 0", "no broker", "no limit",
    )  # fmt: skip
    chosen = [one for one in MISTAKES if one.name in names]
    assert len(chosen) == len(names) >= 12
    text = RIGHT
    for mistake in chosen:
        text = text.replace(mistake.old, mistake.new, 1)
    marks = [found.start() for found in re.finditer(MARK, text)]
    text = text.replace(MARK, "")
    wanted = {place_of(text, mark - number) for number, mark in enumerate(marks)}
    rows = rows_of(looked_at(folder, text))
    assert {row[:2] for row in rows} == wanted, rows
    assert all(any(re.search(mistake.says, row[3]) for row in rows) for mistake in chosen), rows


def test_mistakes_in_included_files_are_told_there(folder: Path) -> None:
    (folder / "more").mkdir()
    more = '[servers.more]\nlisten = "0.0.0.0:8080"\nhandler = "${NOT_SET}"\n\n[upstreams.far]\nurl = "far"\n'
    (folder / "more" / "a.toml").write_text(more)
    gateway = '[[routes]]\npath = "/"\nservice = "uzers"\ntimeout = "1y"\n'
    (folder / "gateway.toml").write_text(gateway)
    text = 'include = ["more/*.toml", "no.toml"]\n' + RIGHT + '\n[gateways.other]\nfile = "gateway.toml"\n'
    report = looked_at(folder, text).source.report(looked_at(folder, text).found)
    assert "more/a.toml:2:1: error: 0.0.0.0:8080 is taken already as 127.0.0.1:8080" in report
    assert "more/a.toml:3:1: error: the environment variable NOT_SET is not set" in report
    assert "more/a.toml:6:1: error: 'far' is not an upstream's URL" in report
    assert "gateway.toml:3:1: error: there is no service named 'uzers'; did you mean 'users'?" in report
    assert "gateway.toml:4:1: error: '1y' is not a duration" in report
    assert "stack.toml:1:27: error: " in report
    assert '    include = ["more/*.toml", "no.toml"]\n' + " " * 30 + "^^^^^^^^^" in report
    assert len(re.findall("error: ", report)) == 6, report


def test_a_gateway_of_its_own_file_that_nobody_asks_is_told_in_the_stack(folder: Path) -> None:
    (folder / "gateway.toml").write_text('[[routes]]\npath = "/"\nrespond = { body = "x" }\n')
    examined = looked_at(folder, RIGHT + '\n[gateways.other]\nfile = "gateway.toml"\n')
    assert rows_of(examined) == [(61, 1, "warning", "nothing serves or asks [gateways.other]")]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_other_formats_are_told_by_their_keys(folder: Path, suffix: str) -> None:
    tables = tomllib.loads(RIGHT)
    tables["servers"]["public"]["handler"] = "frnt"
    tables["upstreams"]["users-a"]["timout"] = "3s"
    text = json.dumps(tables, indent=1)
    examined = looked_at(folder, text, f"stack.{suffix}")
    report = examined.source.report(examined.found)
    assert "did you mean 'front'? (servers.public.handler)" in report
    assert "did you mean 'timeout'? (upstreams.users-a.timout)" in report
    assert len(examined.found) == 2


def test_a_key_of_another_certificate_is_told(folder: Path) -> None:
    authority = trustme.CA()
    for name in ("one", "two"):
        issued = authority.issue_cert(f"{name}.example")
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    for key, wrong in (("one.key", 0), ("two.key", 1)):
        tls = f'tls = {{ cert = "one.pem", key = "{key}" }}'
        rows = rows_of(looked_at(folder, RIGHT.replace("max_connections = 1000", tls)))
        assert len([row for row in rows if "does not belong to the certificate" in row[3]]) == wrong, rows


@pytest.mark.parametrize("order", [1, -1])
def test_handlers_inside_each_other_without_end_are_refused(order: int) -> None:
    chain = {f"b{number}": {"upstreams": [f"b{number + 1}"], "timeout": 5} for number in range(600)[::order]}
    with pytest.raises(StackErrors, match="more than 500 handlers are inside each other"):
        Stack.load({"balancers": chain, "upstreams": {"b600": {"url": "http://far:80"}}}, environment={})


def test_a_stack_that_makes_no_sense_is_not_loaded(folder: Path) -> None:
    path = folder / "stack.toml"
    path.write_text(RIGHT.replace('listen = ["127.0.0.1:8081"', 'listen = ["127.0.0.1:8080"'))
    with pytest.raises(StackErrors, match="taken already"):
        Stack.load(path)
    path.write_text(RIGHT.replace('drain_timeout = "10s"', 'drain_timeout = "5m"'))
    assert ["longer than systemd" in one.message for one in Stack.load(path).warnings] == [True]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_is_fine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert examine(path, {}).found == []


def test_a_token_that_everybody_may_change_is_doubtful(folder: Path) -> None:
    (folder / "token").write_text("0123456789abcdef0123\n")
    text = RIGHT.replace("workers = 1", 'workers = 1\nadmin_token_file = "token"')
    for mode, count in ((0o600, 0), (0o444, 0), (0o666, 1)):  # 0444: what Docker and Kubernetes make of a secret
        (folder / "token").chmod(mode)
        assert len(looked_at(folder, text).found) == count


# -- the command


def run(*words: Any) -> Any:
    return CliRunner().invoke(check, [str(word) for word in words])


def test_a_right_file_is_fine(folder: Path) -> None:
    path = folder / "stack.toml"
    path.write_text(RIGHT)
    result = run(path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: fine, 0 warnings\n", "")


def test_warnings_fail_only_when_strict(folder: Path) -> None:
    path = folder / "stack.toml"
    path.write_text(RIGHT.replace('drain_timeout = "10s"', 'drain_timeout = "5m"'))
    assert run(path).exit_code == 0
    assert run(path, "--strict").exit_code == 3


@pytest.mark.parametrize(
    "text", ["", "# later\n", '[apps.a]\npython = "builtins:print"\n', '[brokers.b]\ndata = ":memory:"\n']
)
def test_what_blocks_run_would_refuse_for_want_of_a_listener_is_wrong(folder: Path, text: str) -> None:
    path = folder / "stack.toml"
    path.write_text(text)
    result = run(path)
    assert result.exit_code == 3
    assert "nothing listens: give it [servers.NAME]" in result.stderr


def test_the_line_is_underlined(folder: Path) -> None:
    path = folder / "stack.toml"
    path.write_text(RIGHT.replace('handler = "front"', 'handler = "frnt"'))
    result = run(path)
    assert result.exit_code == 3
    assert (
        f"{path}:8:1: error: there is no handler 'frnt'; did you mean 'front'? (servers.public.handler)"
        in result.stderr
    )
    assert '    handler = "frnt"\n    ^^^^^^^\n' in result.stderr


def test_json_has_every_complaint_of_every_file(folder: Path) -> None:
    stack, gateway = folder / "stack.toml", folder / "gateway.toml"
    stack.write_text(RIGHT.replace('handler = "front"', 'handler = "frnt"'))
    gateway.write_text('[[routes]]\npath = "/"\nservice = "nobody"\n')
    result = run(stack, gateway, folder / "none.toml", "--json")
    assert result.exit_code == 3
    rows = json.loads(result.stdout)
    assert [(row["file"], row.get("line"), row.get("column"), row["level"], row["key"]) for row in rows] == [
        (str(stack), 8, 1, "error", "servers.public.handler"),
        (str(gateway), 3, 1, "error", "routes[0].service"),
        (str(folder / "none.toml"), None, None, "error", ""),
    ]


# -- whatever is done to a right file


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(allow_nan=False), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from(["front", "127.0.0.1:8080", "http://x", "30x", "api", ":memory:", "0.0.0.0:0", "json:dumps"]),
    st.lists(st.sampled_from(["users", "front", 1, {}]), max_size=3),
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["delete", "misspell", "replace"]), VALUES),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_whatever_is_changed_is_told_and_never_raised(folder: Path, changes: list[Any]) -> None:
    tables = _changed(TABLES, changes)
    examined = looked_at(folder, json.dumps(tables, indent=1), "stack.json")
    lines = (folder / "stack.json").read_text().count("\n") + 1
    for one in examined.found:
        place = examined.source.place(one.at)
        assert place is not None
        assert (place[1] is None and one.at == ()) or 1 <= place[1].line <= lines
        assert one.message
        assert one.level in ("error", "warning")
        inside: Any = tables
        for depth, key in enumerate(
            one.at
        ):  # the place is in the file, or one key below what is (a key that is missing)
            try:
                inside = inside[key]
            except (KeyError, IndexError, TypeError):
                assert depth >= len(one.at) - 2, one
                break
    assert (examined.version is None) == bool(examined.errors)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(RIGHT)), drop=st.integers(0, 6), put=st.text(alphabet='ab=[]{}",.#\n0 $', max_size=3))
def test_a_damaged_text_is_told_at_a_line_of_it(folder: Path, at: int, drop: int, put: str) -> None:
    text = RIGHT[:at] + put + RIGHT[at + drop :]
    examined = looked_at(folder, text)
    for line, column, _, message in rows_of(examined):
        assert 1 <= line <= text.count("\n") + 1
        assert 1 <= column <= max(map(len, text.split("\n"))) + 1
        assert message


@pytest.mark.integration
def test_the_process_exits_with_3(folder: Path) -> None:
    path = folder / "stack.toml"
    path.write_text(RIGHT.replace('handler = "front"', 'handler = "frnt"'))
    words = [sys.executable, "-m", "blocks", "check", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "did you mean 'front'" in done.stderr
