from __future__ import annotations

from pathlib import Path

import pytest

from blocks.gateway.config.load import load
from blocks.gateway.sharing import apart

HEAD = '[redis]\nurl = "redis://127.0.0.1:1"\n[auth.signed]\ntype = "signature"\nSTORE\n[[routes]]\npath = "/{rest:path}"\n'
END = "respond = {}\n"


@pytest.mark.parametrize(("keys", "said"), [
    (END + 'limit = "5/s"', "limits"), (END + 'limit = {rate = "5/s", store = "redis"}', ""),
    (END + "idempotency = true", "idempotency"), (END + 'idempotency = {store = "disk:x.db"}', ""), (END + 'idempotency = {store = "redis"}', ""),
    ('jobs = {service = "s"}\n[services.s]\nrespond = {}', "jobs"), ('jobs = {service = "s", store = "redis"}\n[services.s]\nrespond = {}', ""),
    (END + 'pagination = {offer = "cursor", items = "items"}', "cursor"), (END + 'pagination = {offer = "offset", items = "items"}', ""),
    (END + 'pagination = {offer = "cursor", items = "items", secret = "sixteen characters"}', ""),
    (END + 'auth = "signed"', "signature"), (END, ""),
])  # fmt: skip
def test_what_workers_keep_to_themselves_is_told(tmp_path: Path, keys: str, said: str) -> None:
    path = tmp_path / "g.toml"
    path.write_text(HEAD.replace("STORE", "") + keys)
    told = list(apart(load(path).snapshot))
    assert len(told) == bool(said)
    assert said in "".join(told)


def test_a_shared_store_of_signatures_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text(HEAD.replace("STORE", 'store = "disk:seen.db"') + END + 'auth = "signed"')
    assert list(apart(load(path).snapshot)) == []
