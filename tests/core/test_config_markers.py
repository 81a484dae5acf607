"""The places of JSON and YAML keys are where the keys stand, as those of TOML are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.config.complaint import ConfigErrors
from blocks.core.config.markers import json_places, yaml_places
from blocks.core.config.read import read

TEXT = """{
  "servers": {"public": {"listen": ["127.0.0.1:1", "unix:/x"],
    "tls": null}},
  "rules": [{"path": "/a\\"b"}, 5]
}
"""
YAML = """\
servers:
  public:
    listen:
      - 127.0.0.1:1
      - unix:/x
rules:
  - path: /a
  - 5
"""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path for key, item in items for path in ({(*at, key)} | paths(item, (*at, key)))}


@pytest.mark.parametrize(
    ("at", "place"),
    [
        (("servers", "public"), (2, 15, 8)),
        (("servers", "public", "listen", 1), (2, 52, 9)),
        (("servers", "public", "tls"), (3, 5, 5)),
        (("rules", 0, "path"), (4, 14, 6)),
        (("rules", 1), (4, 32, 1)),
    ],
)
def test_a_key_of_json_has_its_place(at: tuple[Any, ...], place: tuple[int, int, int]) -> None:
    assert json_places(TEXT)[at] == place


@given(VALUES, st.sampled_from([None, 1, 4]))
def test_every_key_of_json_has_a_place(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    places = json_places(text)
    assert set(places) == paths(value)
    lines = text.split("\n")
    for at, place in places.items():
        if isinstance(at[-1], str):
            written = json.dumps(at[-1], ensure_ascii=False)
            assert lines[place.line - 1][place.column - 1 :].startswith(written)


def test_a_key_of_yaml_has_its_place() -> None:
    places = yaml_places(YAML)
    assert places["servers", "public", "listen", 1] == (5, 9, 7)
    assert places["rules", 0, "path"] == (7, 5, 4)
    assert set(places) == paths({"servers": {"public": {"listen": [0, 0]}}, "rules": [{"path": 0}, 5]})


@pytest.mark.parametrize(
    ("name", "text", "line", "column"),
    [("a.json", '{\n  "a": 1,\n  b\n}', 3, 3), ("a.yaml", "a:\n  - b\n c: [", 3, 2)],
)
def test_a_syntax_error_has_its_place(tmp_path: Path, name: str, text: str, line: int, column: int) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigErrors) as raised:
        read(tmp_path / name, {})
    assert raised.value.source is not None
    assert raised.value.source.places[()][:2] == (line, column)


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"a":' + "[" * 100_000), ("a.yaml", "a: &x\n  - *x\n")])
def test_what_is_nested_without_end_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigErrors, match="nested too deep"):
        read(tmp_path / name, {})


@pytest.mark.parametrize(
    ("name", "text", "line", "column"),
    [
        ("a.json", '{"apps": {"a": 1},\n "b": [{"x": 1, "x": 2}],\n "apps": {}}', 2, 17),
        ("a.json", '{"apps": {},\n "b": {"apps": 1},\n "apps": {}}', 3, 2),
        ("a.yaml", "apps:\n  a: 1\nb: {apps: 1}\napps: {}\n", 4, 1),
        ("a.yaml", "b:\n  - x: 1\n    x: 2\n", 3, 5),
    ],
)
def test_a_key_that_is_there_twice_is_an_error_at_its_second_place(
    tmp_path: Path, name: str, text: str, line: int, column: int
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigErrors, match="is there already") as caught:
        read(path, {})
    assert caught.value.source is not None
    assert caught.value.source.places[()][:2] == (line, column)


def test_what_yaml_merges_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n")
    assert read(path, {}).tables["y"] == {"a": 3, "b": 2}
