"""What the documentation says of a stack's file is what the code takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from app.staged import loaded
from blocks.app import tables

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "stack.md").read_text()
TABLES = [one for one in vars(tables).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]


@pytest.mark.parametrize("table", [one for one in TABLES if one.__name__ not in ("Table", "StackTable")])
def test_the_reference_has_every_key_of_every_table(table: type[msgspec.Struct]):
    rows = REFERENCE.split("| key | takes | default | |")
    keys = {field.encode_name for field in msgspec.structs.fields(table)}
    assert keys in [set(re.findall(r"^\| `(\w+)` \|", row, re.M)) for row in rows]


def test_the_file_of_the_how_to_is_right():
    text = (DOCS / "how-to" / "run-a-stack.md").read_text()
    (shop,) = re.findall(r"^# shop.toml\n(.*?)^```", text, re.M | re.S)
    stack = loaded(tomllib.loads(shop))
    assert [one for one in stack.warnings if "listen" not in one.message] == []
    assert set(stack.nodes) == {"cache", "front", "users", "queue"}
