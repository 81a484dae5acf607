"""``blocks edge`` as people use it: two edges behind tokens, a deploy, a roll back, a purge, from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from edge.edge_process import an_origin, edge_process, get

pytestmark = pytest.mark.integration

TOKEN = "correct-horse-battery-staple"
HOST = {"Host": "site.test"}


async def blocks(*arguments: str, token: str = TOKEN) -> tuple[int, str]:
    """(exit code, both outputs) of a command."""

    def run() -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "BLOCKS_EDGE_TOKEN": token}
        command = [sys.executable, "-m", "blocks", "edge", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return await asyncio.to_thread(run)


async def test_deploy_roll_back_purge_and_look(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("one")
    (site / "app.0123abcd.js").write_text("let x = 1;\n" * 100)
    flags = ("--admin-token-file", str(token))
    async with (
        an_origin() as origin,
        edge_process(tmp_path / "a", origin.url, *flags) as one,
        edge_process(tmp_path / "b", origin.url, *flags) as two,
        aiohttp.ClientSession(headers=HOST) as session,
    ):
        to = ("--to", one.admin, "--to", two.admin)
        code, said = await blocks("push", str(site), "--release", "v1", "--prefix", "/site/", "--activate", *to)
        assert (code, "v1 is active" in said) == (0, True), said
        (site / "index.html").write_text("two")
        code, said = await blocks("push", str(site), "--release", "v2", "--prefix", "/site/", *to)
        assert (code, "sent 2 objects, 6 B, to 2 edges" in said) == (0, True), said
        assert (await get(session, two.url + "/site/"))[1] == b"one"
        assert (await blocks("activate", "v2", *to))[0] == 0
        for edge in (one, two):
            assert (await get(session, edge.url + "/site/"))[1] == b"two"
        code, said = await blocks("rollback", *to)
        assert (code, "back to v1" in said) == (0, True), said
        assert (await get(session, one.url + "/site/"))[1] == b"one"
        code, said = await blocks("releases", "--json", *to)
        assert {listing["sites"]["default"]["active"] for listing in json.loads(said).values()} == {"v1"}

        for path in ("/x", "/x"):
            told = (await get(session, one.url + path))[2]
        assert "hit" in told
        assert (await blocks("purge", "--prefix", "/", *to))[0] == 0
        assert "fwd" in (await get(session, one.url + "/x"))[2]
        code, said = await blocks("stats", "--json", *to)
        assert json.loads(said)[one.admin][0]["purged"] == 1

        code, said = await blocks("gc", "--keep", "0", *to, token="wrong")
        assert (code, "bearer token" in said) == (1, True), said
        await two.kill()
        code, said = await blocks("activate", "v2", *to)
        assert (code, two.admin in said, "nothing was switched" in said) == (1, True, True), said
        assert (await get(session, one.url + "/site/"))[1] == b"one"


async def test_a_port_in_use_and_a_store_in_use_are_said_in_a_line(tmp_path: Path) -> None:
    async with an_origin() as origin, edge_process(tmp_path / "a", origin.url) as edge:
        listen = edge.url.removeprefix("http://")
        code, said = await blocks("--listen", listen, "--origin", origin.url)
        assert (code, len(said.splitlines())) == (4, 1), said
        code, said = await blocks("--listen", "127.0.0.1:0", "--origin", origin.url, "--store", str(tmp_path / "a"))
        assert (code, "in use by another process" in said, len(said.splitlines())) == (3, True, 1), said


async def test_origins_are_told_who_asked_and_who_forwards(tmp_path: Path) -> None:
    async with an_origin() as origin, aiohttp.ClientSession(headers={**HOST, "X-Forwarded-For": "1.2.3.4"}) as session:
        for flags, client in (((), "127.0.0.1"), (("--trusted-proxy", "127.0.0.1"), "1.2.3.4, 127.0.0.1")):
            async with edge_process(tmp_path / client[:3], origin.url, *flags) as edge:
                await get(session, edge.url + "/who")
            assert origin.fields["X-Forwarded-For"] == client
            assert origin.fields["Via"] == "1.1 blocks"
            assert origin.fields["X-Forwarded-Host"] == origin.fields["Host"] == "site.test"
        async with edge_process(tmp_path / "none", origin.url, "--no-forwarded", "--via", "off") as edge:
            await get(session, edge.url + "/who")
        assert "Via" not in origin.fields
        assert "Forwarded" not in origin.fields
