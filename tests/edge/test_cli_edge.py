"""The command line refuses what is wrong with exit code 2, a reason and a suggestion, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from blocks.edge.cli import build, edge
from blocks.edge.edge import Edge
from blocks.edge.push.releases import Releases
from blocks.edge.store.disk import DiskStore

FLAGS = {
    "origins": ("http://127.0.0.1:9",), "memory": 1 << 20, "store": None, "store_size": 64 << 20, "push_size": 1 << 30,
    "profile": "safe", "default_ttl": 0.0, "ttl_jitter": "10%", "grace": 60.0, "allow_purge": (), "via": "blocks", "range_fill": 1 << 30, "forwarded": True, "trusted": (), "compress": (), "minify": (),
    "upstream_timeout": 60.0, "connect_timeout": 5.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "127.0.0.1:0"], "--origin URL"),
        (["--origin", "127.0.0.1:9000"], "did you mean http://127.0.0.1:9000?"),
        (["--origin", "http://a", "--memory", "12 parsecs"], "write it like 64KiB"),
        (["--origin", "http://a", "--default-ttl", "soon"], "write it like 30s"),
        (["--origin", "http://a", "--ttl-jitter", "200%"], "10%"),
        (["--origin", "http://a", "--profile", "lax"], "safe"),
        (["--origin", "http://a", "--allow-purge", "me"], "10.0.0.0/8"),
        (["--origin", "http://a", "--via", "two words"], "no name for Via"),
        (["--origin", "http://a", "--compress", "br,lzma"], "'lzma' is not one of br, zstd, gzip"),
        (["--origin", "http://a", "--minify", "png"], "js, css, html, json"),
        (["--origin", "http://a", "--orign", "x"], "--origin"),
        (["purge", "--to", "http://a"], "exactly one of"),
        (["purge", "--to", "http://a", "--url", "/x", "--tag", "t"], "exactly one of"),
        (["purge", "--to", "127.0.0.1:9000", "--url", "/x"], "did you mean http://127.0.0.1:9000?"),
        (["activate", "--to", "http://a"], "name one release"),
        (["stats", "--to", "http://a", "--to", "http://a"], "twice"),
        (["push", "/nowhere", "--release", "v1", "--to", "http://a"], "does not exist"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(edge, arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_folder_that_cannot_be_a_release_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(edge, ["push", str(tmp_path), "--release", "v1", "--to", "http://127.0.0.1:9"])
    assert (result.exit_code, "holds no files" in result.output) == (2, True)
    (tmp_path / "a").write_text("x")
    result = CliRunner().invoke(edge, ["push", str(tmp_path), "--release", "../v1", "--to", "http://127.0.0.1:9"])
    assert (result.exit_code, "cannot be the name" in result.output) == (2, True)


def test_flags_become_an_edge_with_both_tiers_and_releases(tmp_path: Path) -> None:
    built = build({**FLAGS, "store": str(tmp_path), "compress": ("gzip",), "minify": ("json",)}, workers=2)
    assert isinstance(built, Edge)
    assert isinstance(built.store, DiskStore)
    assert built.store.size == 32 << 20
    assert any(isinstance(part, Releases) for part in built.parts)
    assert len(built.transforms) == 2
    assert build(FLAGS, workers=1).store is None
