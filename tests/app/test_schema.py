"""The schemas accept what the loaders accept, refuse what they refuse for its form, and describe every key."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner

from app.stack_mistakes import MARK, MISTAKES, RIGHT
from blocks.app.check import is_gateway
from blocks.app.schema import gateway_schema, schema, stack_schema
from blocks.app.schema_words import WORDS
from blocks.app.tables import Table

ROOT = Path(__file__).parents[2]
STACK, GATEWAY = stack_schema(), gateway_schema()
OF_STACKS, OF_GATEWAYS = jsonschema_rs.validator_for(STACK), jsonschema_rs.validator_for(GATEWAY)
FORM = (  # mistakes of form: what a schema can know
    "unknown kind", "unknown key", "unknown key of an upstream", "unknown key deep inside", "unknown key of a route", "missing key",
    "wrong type", "out of range", "no duration", "no duration in a list", "no size", "not one of", "table for a name",
)  # fmt: skip


def complaints(validator: Any, tables: Any) -> list[str]:
    return [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(tables)]


@pytest.mark.parametrize("document", [STACK, GATEWAY], ids=["stack", "gateway"])
def test_it_is_a_schema_of_2020_12(document: Any) -> None:
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(document)


def test_a_right_stack_is_valid() -> None:
    assert complaints(OF_STACKS, tomllib.loads(RIGHT)) == []


def test_a_gateways_broker_is_not_a_stacks_broker() -> None:
    gateway = {"brokers": {"far": {"url": "blocks://127.0.0.1:7400"}}, "routes": []}
    assert complaints(OF_STACKS, {"gateways": {"g": gateway}, "brokers": {"near": {"data": ":memory:"}}}) == []
    assert complaints(OF_STACKS, {"brokers": {"far": {"url": "blocks://127.0.0.1:7400"}}}) != []


@pytest.mark.parametrize("kind", ["jwt", "mtls", "nothing"])
def test_an_authenticator_is_checked_by_its_type(kind: str) -> None:
    found = complaints(OF_GATEWAYS, {"auth": {"a": {"type": kind}}, "routes": []})
    assert (found == []) == (kind != "nothing")
    assert complaints(OF_GATEWAYS, {"auth": {"a": {"type": kind, "relm": "x"}}, "routes": []}) != []


@pytest.mark.parametrize("name", FORM)
def test_a_mistake_of_form_is_not_valid(name: str) -> None:
    mistake = next(one for one in MISTAKES if one.name == name)
    text = RIGHT.replace(mistake.old, mistake.new, 1).replace(MARK, "")
    assert complaints(OF_STACKS, tomllib.loads(text)) != []


def test_every_example_is_valid() -> None:
    files = [*(ROOT / "examples").rglob("*.toml"), *(ROOT / "deploy").rglob("*.toml")]
    for path in files:
        validator = OF_GATEWAYS if is_gateway(path) else OF_STACKS
        assert complaints(validator, tomllib.loads(path.read_text())) == [], path


def _documented() -> list[tuple[str, str]]:
    """(page, text) of every TOML in the documentation that is a stack or a gateway."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    found = [(page.name, block) for page in pages for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S)]
    return [
        (page, block)
        for page, block in found
        if re.search(r"^\[+(gateway|routes|limits|services|servers)\b", block, re.M)
    ]


@pytest.mark.parametrize(("page", "text"), _documented())
def test_what_the_documentation_shows_is_valid(page: str, text: str) -> None:
    tables = tomllib.loads(text)
    assert complaints(OF_STACKS if "servers" in tables else OF_GATEWAYS, tables) == []


def test_every_key_is_described() -> None:
    kinds = [kind for kind in Table.__subclasses__() if kind.__module__ == "blocks.app.tables"]
    assert {kind.__name__ for kind in kinds} <= set(WORDS)
    for kind in kinds:
        assert set(WORDS[kind.__name__]) == set(kind.__struct_fields__), kind


def test_defaults_are_those_of_the_constructors() -> None:
    definitions = STACK["$defs"]
    assert definitions["HealthTable"]["properties"]["interval"]["default"] == 2.0
    assert definitions["UpstreamTable"]["properties"]["timeout"]["default"] == 60.0
    assert definitions["EdgeTable"]["properties"]["memory"]["default"] == "256MiB"
    assert definitions["ServerTable"]["properties"]["head_timeout"]["default"] == 10.0


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("drain_timeout", [5, 0.5, "30s", "1h30m", "250ms", "${DRAIN:-5s}"], ["30x", "s", "", -1, True, "1 hour"]),
        ("workers", [1, 256], [0, 257, "1"]),
    ],
)
def test_quantities_have_their_form(key: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        assert complaints(OF_STACKS, {"process": {key: value}}) == [], value
    for value in wrong:
        assert complaints(OF_STACKS, {"process": {key: value}}) != [], value


@pytest.mark.parametrize("kind", ["stack", "gateway"])
def test_the_command_prints_it(kind: str) -> None:
    result = CliRunner().invoke(schema, [kind])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(STACK if kind == "stack" else GATEWAY))
