"""The reference names every key of the file: a key that is added without a row in it fails here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from blocks.gateway.auth.consumers import ConsumerSettings
from blocks.gateway.auth.settings import KINDS
from blocks.gateway.config import schema
from blocks.gateway.limits import Limit
from blocks.gateway.messages.connection import BrokerTable
from blocks.gateway.redis import RedisTable
from blocks.gateway.steps import ENDS, FEATURES
from blocks.gateway.versions import Versions

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "gateway.md").read_text()
TABLES = [
    schema.GatewayTable, schema.ServiceTable, schema.RespondTable, schema.ChangeTable, schema.AlertTable, schema.RouteTable, schema.CacheTable,
    Limit, RedisTable, BrokerTable, Versions, ConsumerSettings, *KINDS.values(),
    *[found for feature in (*FEATURES, *ENDS) if (found := getattr(import_module(feature.home), "Settings", None)) is not None],
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.__module__.rpartition('.')[2]}.{table.__name__}")
def test_every_key_has_a_row(table: type[msgspec.Struct]) -> None:
    missing = [field.encode_name for field in msgspec.structs.fields(table) if f"| `{field.encode_name}` |" not in TEXT]
    assert missing == []


def test_the_steps_stand_in_the_reference_in_their_order_with_their_reasons() -> None:
    section = TEXT.partition("## The order of the steps")[2].partition("## The command line")[0]
    places = [
        section.find(f"| `{feature.keywords[0]}`" if feature.key != "early" else "`early`") for feature in FEATURES
    ]
    assert -1 not in places
    assert places == sorted(places)
