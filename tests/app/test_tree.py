from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.stack_mistakes import RIGHT
from blocks.app.explain import explain
from blocks.app.tree import drawn, mermaid, topology, tree

DRAWN = """\
stack.toml
├─ servers.public  listen=127.0.0.1:8080  max_connections=1000
│  └─ edges.front  memory=64MiB  store=cache
│     └─ gateways.api  routes=2
│        ├─ GET /users/{id:int} → balancers.users  policy=p2c  health=/healthz every 2s  retries=3 tries  timeout=10s  max_requests=100
│        │  ├─ upstreams.users-a  url=http://127.0.0.1:9001  timeout=3s
│        │  └─ http://127.0.0.1:9002
│        └─ POST /orders → brokers.events  listen=127.0.0.1:7400  data=log  durability=fsync
├─ servers.hello  listen=127.0.0.1:8081, unix:/run/hello.sock
│  └─ apps.hello  python=json:dumps
└─ brokers.events  (see above)"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stack.toml"
    path.write_text(RIGHT)
    return path


def run(*words: Any) -> Any:
    return CliRunner().invoke(tree, [str(word) for word in words])


def test_the_tree_goes_from_the_listeners_to_the_upstreams() -> None:
    assert drawn(topology(tomllib.loads(RIGHT)), "stack.toml") == DRAWN


def test_what_is_shared_is_drawn_once() -> None:
    tables = {
        "servers": {"a": {"listen": ":1", "handler": "x"}, "b": {"listen": ":2", "handler": "x"}},
        "balancers": {"x": {"upstreams": ["http://h:1"]}},
    }
    assert drawn(topology(tables), "t").split("\n")[-2:] == [
        "└─ servers.b  listen=:2",
        "   └─ balancers.x  (see above)",
    ]


def test_a_gateway_of_a_file_of_its_own_is_drawn_with_its_routes(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        '[services.old]\nurl = "http://old:80"\n[[routes]]\npath = "/old"\nservice = "old"\n'
    )
    path = tmp_path / "stack.toml"
    path.write_text('[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "g"\n[gateways.g]\nfile = "gateway.toml"\n')
    result = run(path)
    assert result.exit_code == 0
    assert result.stdout.split("\n")[1:] == [
        "└─ servers.s  listen=127.0.0.1:0",
        "   └─ gateways.g  file=gateway.toml  routes=1",
        "      └─ /old → http://old:80",
        "",
    ]


def test_who_is_only_mirrored_to_is_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    path.write_text(
        '[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "g"\n'
        '[[gateways.g.routes]]\npath = "/"\nrespond = { body = "x" }\nmirror = "m"\n[upstreams.m]\nurl = "http://m:80"\n'
    )
    result = run(path)
    assert "      └─ / → upstreams.m" in result.stdout
    assert result.stderr == ""


def test_json_has_blocks_and_links(file: Path) -> None:
    found = json.loads(run(file, "--json").stdout)
    assert found["roots"] == ["servers.public", "servers.hello", "brokers.events"]
    blocks = {one["id"]: one for one in found["blocks"]}
    assert blocks["upstreams.users-a"]["about"] == {"url": "http://127.0.0.1:9001", "timeout": "3s"}
    links = {(one["from"], one["to"]): one["words"] for one in found["links"]}
    assert links["gateways.api", "balancers.users"] == ["GET /users/{id:int}"]
    assert all(source in blocks and target in blocks for source, target in links)


def test_mermaid_names_every_block_and_escapes(file: Path) -> None:
    text = run(file, "--mermaid").stdout
    assert text.startswith("flowchart LR\n")
    assert '(["servers.public<br>127.0.0.1:8080"])' in text
    assert '-->|"GET /users/{id:int}"|' in text
    odd = {"gateways": {"g": {"routes": [{"path": '/"<a>|', "service": "x"}]}}, "upstreams": {"x": {"url": "http://h"}}}
    assert '|"/#quot;#lt;a#gt;#124;"|' in mermaid(topology(odd))


def test_credentials_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_TOKEN", "not-to-be-seen")
    path = tmp_path / "stack.toml"
    far = 'publish = { to = "blocks://${FAR_TOKEN}@far:7400", topic = "t" }'
    path.write_text(
        '[servers.s]\nlisten = "127.0.0.1:0"\nhandler = "g"\n'
        f'[[gateways.g.routes]]\npath = "/far"\n{far}\n[[gateways.g.routes]]\npath = "/back"\nservice = "b"\n'
        '[upstreams.b]\nurl = "http://b:80"\n'
    )
    result = run(path)
    assert "/far → blocks://***@far:7400" in result.stdout
    for command in (tree, explain):
        words = [str(path)] if command is tree else [str(path), "POST", "/far"]
        assert "not-to-be-seen" not in CliRunner().invoke(command, words).output


def test_a_gateways_file_is_no_stack(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[[routes]]\npath = "/"\nrespond = {}\n')
    result = run(path)
    assert result.exit_code == 2
    assert "blocks gateway explain" in result.stderr


def test_a_wrong_file_is_told_and_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "stack.toml"
    path.write_text(RIGHT.replace('handler = "front"', 'handler = "frnt"'))
    result = run(path)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "did you mean 'front'" in result.stderr
