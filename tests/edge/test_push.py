"""Push: manifests that cannot reach out of the store, two phases, resumption, damage, kills; serving from releases."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from blocks.core.clock import FakeClock
from blocks.core.errors import ConfigError
from blocks.edge.entry import PUSHED, Entry
from blocks.edge.push import manifest as manifests
from blocks.edge.push.client import PIECE, Fleet, NotSwitched, PointFailed
from blocks.edge.push.manifest import File, Manifest, asked_path, digest_field
from blocks.edge.push.objects import Refused
from blocks.edge.push.releases import NoRoom, Releases, Unknown
from blocks.edge.push.rules import FINGERPRINTED, OTHERS, PAGES, fields_of, rules_of
from blocks.edge.push.scan import Scanned, Terms, scan
from blocks.edge.push.site import LEASE, Conflict, Site
from blocks.edge.push.site import decode as site_decode
from blocks.edge.push.site import encode as site_encode
from blocks.edge.store.disk.record import BLOCK
from blocks.edge.transform import Compression
from blocks.http.message import Request, Response
from edge.disk_faults import FaultyFiles


def hexof(data: bytes) -> str:
    return sha256(data).hexdigest()


def manifest(files: dict[str, bytes], release: str = "v1", **more: Any) -> Manifest:
    return Manifest(
        release,
        [File(p, digest_field(sha256(b).digest()), len(b), [("content-type", "text/plain")]) for p, b in files.items()],
        **more,
    )


async def pushed(releases: Releases, files: dict[str, bytes], release: str = "v1", **more: Any) -> Manifest:
    made = manifest(files, release, **more)
    answer = await releases.stage(manifests.encode(made))
    contents = {hexof(body): body for body in files.values()}
    for name, offset in answer["missing"].items():
        await releases.take(name, offset, contents[name][offset:])
    return made


async def active(releases: Releases, release: str, site: str = "default", tx: str = "t1") -> None:
    await releases.prepare(site, release, tx)
    await releases.commit(site, tx)


async def text_of(found: Entry | Response | None) -> bytes | None:
    if found is None:
        return None
    if isinstance(found, Entry):
        return found.body if isinstance(found.body, bytes) else await found.body.stream().read()
    return await found.read()


def releases(path: Path, **more: Any) -> Releases:
    return Releases(path / "push", **{"clock": FakeClock(), **more})


# -- manifests


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "/../x",
        "/a/../../x",
        "/a/./b",
        "//x",
        "/a//b",
        "/a\\b",
        "/a\0b",
        "/a\nb",
        "relative",
        "",
        "/a?b",
        "/a#b",
        "/" + "x" * 3000,
        "/\ud800",
    ],
)
def test_a_path_that_leaves_or_confuses_is_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        manifests.check(Manifest("v1", [File(path, digest_field(bytes(32)), 0)]))


@pytest.mark.parametrize("name", ["../v1", "a/b", "", ".hidden", "x" * 200, "a\0", "a..b", "v1\n"])
def test_a_release_or_site_name_is_plain(name: str) -> None:
    with pytest.raises(ConfigError):
        manifests.check(Manifest(name, []))
    with pytest.raises(ConfigError):
        manifests.check(Manifest("v1", [], site=name))


@pytest.mark.parametrize(
    "field",
    [
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("x", "a\r\nb: c"),
        ("bad name", "x"),
        ("etag", '"x"'),
    ],
)
def test_fields_that_would_break_framing_are_refused(field: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        manifests.check(Manifest("v1", [File("/a", digest_field(bytes(32)), 1, [field])]))


@given(st.binary(max_size=300))
def test_any_bytes_as_a_manifest_are_a_manifest_or_a_clear_error(data: bytes) -> None:
    try:
        manifests.decode(data)
    except ConfigError:
        pass


def test_a_manifest_survives_its_encoding() -> None:
    made = manifest({"/a": b"1", "/b/index.html": b"2"}, hosts=["a.test"], miss="pull")
    assert manifests.decode(manifests.encode(made)) == made


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a", "/a"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/a%2fb", None),
        ("/a%5Cb", None),
        ("/%2e%2e/x", None),
        ("/%ff", None),
        ("/a%00", None),
        ("/../x", None),
    ],
)  # fmt: skip
def test_a_request_s_path_is_decoded_once_and_never_into_another_place(raw: str, path: str | None) -> None:
    assert asked_path(raw) == path


# -- rules and scanning


def test_fields_by_kind_of_file() -> None:
    assert dict(fields_of("/index.html", []))["cache-control"] == PAGES
    assert dict(fields_of("/app.3f9a1c22.js", []))["cache-control"] == FINGERPRINTED
    assert dict(fields_of("/assets/index-DiwrgTda2.css", []))["cache-control"] == FINGERPRINTED
    assert dict(fields_of("/logo.png", []))["cache-control"] == OTHERS
    assert dict(fields_of("/some-component.js", []))["cache-control"] == OTHERS
    assert dict(fields_of("/x.js", []))["content-type"] == "text/javascript; charset=utf-8"
    assert dict(fields_of("/noext", []))["content-type"] == "application/octet-stream"


def test_rules_override_in_order() -> None:
    rules = rules_of(
        {
            "rule": [
                {"match": "/assets/*", "headers": {"Cache-Control": "max-age=5"}},
                {"match": "*.css", "headers": {"X-A": "1", "Cache-Control": ""}},
            ]
        }
    )
    assert dict(fields_of("/assets/a.js", rules))["cache-control"] == "max-age=5"
    assert "cache-control" not in dict(fields_of("/assets/a.css", rules))
    with pytest.raises(ConfigError, match="rule 1"):
        rules_of({"rule": [{"match": 5}]})
    with pytest.raises(ConfigError, match="unknown"):
        rules_of({"rules": []})


def test_a_folder_is_scanned_and_links_out_of_it_are_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "docs").mkdir(parents=True)
    (site / ".well-known").mkdir()
    (site / ".git").mkdir()
    (site / ".git" / "config").write_text("secret")
    (site / ".well-known" / "security.txt").write_text("x")
    (site / "index.html").write_text("<p>hi</p>")
    (site / "404.html").write_text("gone")
    (site / "docs" / "a b.txt").write_text("x")
    os.symlink(site / "index.html", site / "start.html")
    scanned = scan(str(site), "v1", Terms(prefix="/p/"))
    paths = [file.path for file in scanned.manifest.files]
    assert paths == ["/p/.well-known/security.txt", "/p/404.html", "/p/docs/a b.txt", "/p/index.html", "/p/start.html"]
    assert scanned.manifest.not_found == "/p/404.html"
    assert len(scanned.manifest.objects) == 3  # equal bytes travel once
    os.symlink("/etc/hostname", site / "leak.txt")
    with pytest.raises(ConfigError, match="link out of the folder"):
        scan(str(site), "v1")
    (site / "leak.txt").unlink()
    os.symlink("/etc", site / "etc")
    with pytest.raises(ConfigError, match="link to a folder"):
        scan(str(site), "v1")


# -- the site's state


def test_two_activations_at_once_are_refused_clearly_and_end_by_themselves() -> None:
    site = Site("default")
    site.prepare("t1", "v1", 0.0)
    site.prepare("t1", "v1", 1.0)
    with pytest.raises(Conflict, match="another activation"):
        site.prepare("t2", "v2", 2.0)
    with pytest.raises(Conflict):
        site.commit("t2", 2.0)
    site.prepare("t2", "v2", 2.0 + LEASE)
    with pytest.raises(Conflict):
        site.commit("t1", 3.0 + LEASE)
    assert site.commit("t2", 3.0 + LEASE) == "v2"
    assert site.commit("t2", 9.0 + LEASE) == "v2"


def test_revert_undoes_its_own_commit_only() -> None:
    site = Site("default")
    for number in (1, 2, 3):
        site.prepare(f"t{number}", f"v{number}", 0.0)
        site.commit(f"t{number}", 0.0)
    assert site.previous == "v2"
    assert site.revert("t1", 1.0) == "v3"
    assert site.revert("t3", 1.0) == "v2"
    assert site.revert("t3", 1.0) == "v2"
    assert site_decode(site_encode(site)) == site


def test_rolling_back_twice_goes_back_twice_in_history() -> None:
    site = Site("default")
    for number in (1, 2):
        site.prepare(f"t{number}", f"v{number}", 0.0)
        site.commit(f"t{number}", 0.0)
    site.prepare("t3", site.previous, 0.0)
    site.commit("t3", 0.0)
    assert site.active == "v1"
    assert site.previous == "v2"


# -- releases


async def test_a_release_is_served_after_its_activation_and_after_a_restart(tmp_path: Path) -> None:
    large = os.urandom(2 * BLOCK + 5)
    async with releases(tmp_path) as kept:
        assert kept.find(Request("GET", "/a.txt")) is None
        await pushed(kept, {"/a.txt": b"hello", "/big": large, "/index.html": b"home", "/docs/index.html": b"docs"})
        assert kept.find(Request("GET", "/a.txt")) is None
        await active(kept, "v1")
        found = kept.find(Request("GET", "/a.txt?x=1"))
        assert isinstance(found, Entry)
        assert found.flags & PUSHED
        assert found.find(b"etag") == b'"' + hexof(b"hello")[:32].encode() + b'"'
        assert found.find(b"date") == b"Tue, 14 Nov 2023 22:13:20 GMT"
        assert found.find(b"repr-digest") == digest_field(sha256(b"hello").digest()).encode()
    async with releases(tmp_path) as kept:
        assert await text_of(kept.find(Request("GET", "/a.txt"))) == b"hello"
        assert await text_of(kept.find(Request("HEAD", "/big"))) == large
        assert await text_of(kept.find(Request("GET", "/"))) == b"home"
        assert await text_of(kept.find(Request("GET", "/docs/"))) == b"docs"
        moved = kept.find(Request("GET", "/docs?x=1"))
        assert isinstance(moved, Response)
        assert (moved.status, moved.headers["location"]) == (301, "/docs/?x=1")
        missing = kept.find(Request("GET", "/none"))
        assert isinstance(missing, Response)
        assert missing.status == 404
        refused = kept.find(Request("POST", "/a.txt"))
        assert isinstance(refused, Response)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        assert (await kept.status())["sites"]["default"]["active"] == "v1"


async def test_a_miss_is_pulled_or_404_or_the_application_s_page_as_configured(tmp_path: Path) -> None:
    async with releases(tmp_path) as kept:
        await pushed(kept, {"/p/a": b"a"}, "v1", site="pull", prefix="/p/", miss="pull")
        await active(kept, "v1", "pull")
        await pushed(kept, {"/app/index.html": b"app"}, "v1", site="app", prefix="/app/", fallback="/app/index.html")
        await active(kept, "v1", "app")
        await pushed(
            kept,
            {"/d/404.html": b"custom"},
            "v1",
            site="docs",
            prefix="/d/",
            not_found="/d/404.html",
            hosts=["docs.test"],
        )
        await active(kept, "v1", "docs")
        assert kept.find(Request("GET", "/p/none")) is None
        assert kept.find(Request("GET", "/elsewhere")) is None
        assert await text_of(kept.find(Request("GET", "/app/deep/link"))) == b"app"
        assert kept.find(Request("GET", "/d/x", {"host": "other.test"})) is None
        own = kept.find(Request("GET", "/d/x", {"host": "Docs.test"}))
        assert isinstance(own, Response)
        assert (own.status, await own.read()) == (404, b"custom")


async def test_only_what_is_missing_is_asked_for_and_an_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with releases(tmp_path) as kept:
        await pushed(kept, {"/a": b"same", "/b": b"old"})
        second = manifest({"/a": b"same", "/b": b"new", "/c": b"new", "/e": b""}, "v2")
        answer = await kept.stage(manifests.encode(second))
        assert answer["missing"] == {hexof(b"new"): 0}
        await kept.take(hexof(b"new"), 0, b"ne")
        assert (await kept.stage(manifests.encode(second)))["missing"] == {hexof(b"new"): 2}
        with pytest.raises(Conflict, match="not complete"):
            await kept.prepare("default", "v2", "t")
        with pytest.raises(Refused) as caught:
            await kept.take(hexof(b"new"), 3, b"")
        assert caught.value.at == 2
        assert (await kept.take(hexof(b"new"), 0, b"ne"))["received"] == 2  # a repeated piece is no harm
    async with releases(tmp_path) as kept:
        assert (await kept.take(hexof(b"new"), 2, b"w"))["complete"]
        await active(kept, "v2")
        assert await text_of(kept.find(Request("GET", "/c"))) == b"new"


async def test_lies_are_refused(tmp_path: Path) -> None:
    async with releases(tmp_path, capacity=1000) as kept:
        made = manifest({"/a": b"truth"})
        await kept.stage(manifests.encode(made))
        with pytest.raises(Refused, match="digest"):
            await kept.take(hexof(b"truth"), 0, b"lies!")
        with pytest.raises(Refused, match="more bytes"):
            await kept.take(hexof(b"truth"), 0, b"truth and more")
        with pytest.raises(Unknown):
            await kept.take(hexof(b"other"), 0, b"other")
        with pytest.raises((ConfigError, Unknown)):
            await kept.take("../../etc/passwd", 0, b"x")
        with pytest.raises(Conflict, match="another release"):
            await kept.stage(manifests.encode(manifest({"/a": b"else"})))
        with pytest.raises(NoRoom):
            await kept.stage(manifests.encode(manifest({"/a": bytes(2000)}, "v2")))
        with pytest.raises(Unknown):
            await kept.prepare("default", "v9", "t")
    assert sorted(p.name for p in (tmp_path / "push").iterdir()) == ["objects", "releases", "sites", "uploads"]


async def test_a_switch_is_seen_at_once_and_rolls_back(tmp_path: Path) -> None:
    async with releases(tmp_path) as kept:
        seen: list[str] = []
        kept.switched = seen.append
        await pushed(kept, {"/a": b"one"}, "v1")
        await pushed(kept, {"/a": b"two"}, "v2")
        await active(kept, "v1", tx="t1")
        await active(kept, "v2", tx="t2")
        assert await text_of(kept.find(Request("GET", "/a"))) == b"two"
        await kept.revert("default", "t2")
        assert await text_of(kept.find(Request("GET", "/a"))) == b"one"
        await kept.revert("default", "t2")
        assert await text_of(kept.find(Request("GET", "/a"))) == b"one"
        assert seen == ["default"] * 3


async def test_a_prepared_activation_survives_a_restart(tmp_path: Path) -> None:
    async with releases(tmp_path) as kept:
        await pushed(kept, {"/a": b"one"})
        await kept.prepare("default", "v1", "t1")
    async with releases(tmp_path) as kept:
        assert kept.find(Request("GET", "/a")) is None
        await kept.commit("default", "t1")
        assert await text_of(kept.find(Request("GET", "/a"))) == b"one"


async def test_workers_that_share_the_folder_switch_together(tmp_path: Path) -> None:
    async with releases(tmp_path) as one, releases(tmp_path) as two:
        for worker in (one, two):
            await pushed(worker, {"/a": b"x"})
            await worker.prepare("default", "v1", "t1")
        for worker in (one, two):
            await worker.commit("default", "t1")
            assert await text_of(worker.find(Request("GET", "/a"))) == b"x"
        for worker in (one, two):
            await worker.revert("default", "t1")
            assert worker.find(Request("GET", "/a")) is None


async def test_damaged_pushed_bytes_are_never_served(tmp_path: Path) -> None:
    large = os.urandom(2 * BLOCK)
    async with releases(tmp_path) as kept:
        await pushed(kept, {"/small": b"small", "/large": large})
        await active(kept, "v1")
    for name in (hexof(b"small"), hexof(large)):
        place = tmp_path / "push" / "objects" / name[:2] / name
        data = bytearray(place.read_bytes())
        data[-1] ^= 1
        place.write_bytes(data)
    async with releases(tmp_path) as kept:
        small = kept.find(Request("GET", "/small"))
        assert isinstance(small, Response)
        assert small.status == 503
        entry = kept.find(Request("GET", "/large"))
        assert isinstance(entry, Entry)
        with pytest.raises(Exception, match="checksum"):
            await text_of(entry)
        after = kept.find(Request("GET", "/large"))
        assert isinstance(after, Response)
        await pushed(kept, {"/small": b"small", "/large": large})  # the same release again brings the bytes back
        await active(kept, "v1", tx="t2")
        assert await text_of(kept.find(Request("GET", "/large"))) == large


async def test_pushed_files_are_compressed_once_for_clients_that_take_it(tmp_path: Path) -> None:
    page, script = b"<p>hello</p>" * 100, b"let x = 1;\n" * 20_000
    async with releases(tmp_path, compression=Compression(["gzip"])) as kept:
        await pushed(kept, {"/a": page, "/b": script})
        await active(kept, "v1")
        request = Request("GET", "/a", {"accept-encoding": "gzip"})
        first, plain = kept.find(request), kept.find(Request("GET", "/a"))
        assert isinstance(first, Entry)
        assert isinstance(plain, Entry)
        assert zlib.decompress(await text_of(first) or b"", 31) == page
        assert first.find(b"etag") == b"W/" + (plain.find(b"etag") or b"")
        assert plain.find(b"vary") == first.find(b"vary") == b"Accept-Encoding"
        assert first.find(b"repr-digest") is None
        assert kept.find(request) is first
        request = Request("GET", "/b", {"accept-encoding": "gzip"})
        assert await text_of(kept.find(request)) == script  # a thread codes it meanwhile
        for _ in range(10_000):
            await asyncio.sleep(0)
            if await text_of(kept.find(request)) != script:
                break
        assert zlib.decompress(await text_of(kept.find(request)) or b"", 31) == script


async def test_gc_keeps_what_is_needed(tmp_path: Path) -> None:
    async with releases(tmp_path) as kept:
        for number in range(6):
            await pushed(kept, {"/a": b"%d" % number, "/same": b"same"}, f"v{number}")
            os.utime(tmp_path / "push" / "releases" / "default" / f"v{number}.json", (number, number))
        await active(kept, "v0", tx="t0")
        await active(kept, "v1", tx="t1")
        answer = await kept.gc(keep=2)
        assert answer["dropped"] == ["default/v2", "default/v3"]
        assert answer["freed"] == 2
        assert await text_of(kept.find(Request("GET", "/a"))) == b"1"
        rows = (await kept.status())["sites"]["default"]["releases"]
        assert [row["release"] for row in rows] == ["v0", "v1", "v4", "v5"]
        assert all(row["missing"] == 0 for row in rows)


async def test_a_full_disk_fails_a_push_and_leaves_the_old_release(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with releases(tmp_path, files=files) as kept:
        await pushed(kept, {"/a": b"one"}, "v1")
        await active(kept, "v1")
        await kept.stage(manifests.encode(manifest({"/a": bytes(5000)}, "v2")))
        files.room = 100
        with pytest.raises(OSError, match="space"):
            await kept.take(hexof(bytes(5000)), 0, bytes(5000))
        with pytest.raises(Conflict):
            await kept.prepare("default", "v2", "t2")
        assert await text_of(kept.find(Request("GET", "/a"))) == b"one"
        files.room = None
        await pushed(kept, {"/a": bytes(5000)}, "v2")
        await active(kept, "v2", tx="t3")
        assert await text_of(kept.find(Request("GET", "/a"))) == bytes(5000)


# -- several edges


def push_api(kept: Releases) -> web.Application:
    from blocks.edge.admin import push_routes

    app = web.Application()
    push_routes(app, kept)
    return app


@asynccontextmanager
async def fleet(tmp_path: Path, count: int) -> AsyncIterator[tuple[Fleet, list[Releases], list[TestServer]]]:
    async with AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(releases(tmp_path / str(n))) for n in range(count)]
        servers = []
        for each in kept:
            server = TestServer(push_api(each))
            await server.start_server()
            stack.push_async_callback(server.close)
            servers.append(server)
        clients = await stack.enter_async_context(Fleet([f"http://127.0.0.1:{s.port}" for s in servers]))
        yield clients, kept, servers


def folder(tmp_path: Path, files: dict[str, bytes]) -> str:
    root = tmp_path / "site"
    for name, body in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return str(root)


async def push(clients: Fleet, root: str, release: str) -> int:
    scanned = scan(root, release)
    sent = 0

    def progress(size: int) -> None:
        nonlocal sent
        sent += size

    await clients.send(scanned, await clients.stage(scanned), progress)
    return sent


async def test_a_push_reaches_every_edge_and_only_changes_travel(tmp_path: Path) -> None:
    large = os.urandom(1_300_000)
    async with fleet(tmp_path, 2) as (clients, kept, _):
        root = folder(tmp_path, {"index.html": b"one", "big.bin": large, "empty.txt": b""})
        assert await push(clients, root, "v1") == 2 * (3 + len(large))
        await clients.activate("default", "v1")
        folder(tmp_path, {"index.html": b"two!"})
        assert await push(clients, root, "v2") == 8
        assert await push(clients, root, "v2") == 0
        await clients.activate("default", "v2")
        for each in kept:
            assert await text_of(each.find(Request("GET", "/"))) == b"two!"
            assert await text_of(each.find(Request("GET", "/big.bin"))) == large
            assert await text_of(each.find(Request("GET", "/empty.txt"))) == b""
        assert await clients.rollback("default") == "v1"
        for each in kept:
            assert await text_of(each.find(Request("GET", "/"))) == b"one"
        assert [listing["sites"]["default"]["active"] for listing in await clients.releases()] == ["v1", "v1"]
        assert all(answer["dropped"] == [] for answer in await clients.gc(5))


async def test_a_large_manifest_travels_in_pieces(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2) as (clients, kept, _):
        made = manifest({f"/{n}": b"x" for n in range(8000)})
        assert len(manifests.encode(made)) > 2 * PIECE
        missing = await clients.stage(Scanned(made, {}))
        assert missing == [{hexof(b"x"): 0}] * 2
        with pytest.raises(Refused) as caught:
            await kept[0].stage_piece(hexof(b"y"), 100, 50, b"late")
        assert caught.value.at == 0
        with pytest.raises(Refused, match="digest"):
            await kept[0].stage_piece(hexof(b"y"), 4, 0, b"lies")


async def test_an_edge_that_lacks_the_release_is_named_and_none_is_switched(tmp_path: Path) -> None:
    async with fleet(tmp_path, 3) as (clients, kept, servers):
        await push(clients, folder(tmp_path, {"a": b"one"}), "v1")
        await clients.activate("default", "v1")
        folder(tmp_path, {"a": b"two"})
        await push(clients, str(tmp_path / "site"), "v2")
        (tmp_path / "1" / "push" / "releases" / "default" / "v2.json").unlink()
        with pytest.raises(NotSwitched, match=f"127.0.0.1:{servers[1].port}: there is no release v2"):
            await clients.activate("default", "v2")
        for each in kept:
            assert await text_of(each.find(Request("GET", "/a"))) == b"one"
        await clients.activate("default", "v1")  # nothing stays reserved


async def test_an_edge_that_fails_at_the_commit_puts_all_back(tmp_path: Path) -> None:
    async with fleet(tmp_path, 3) as (clients, kept, servers):
        root = folder(tmp_path, {"a": b"one"})
        await push(clients, root, "v1")
        await clients.activate("default", "v1")
        folder(tmp_path, {"a": b"two"})
        await push(clients, root, "v2")
        real = kept[2].commit

        async def failing(site: str, transaction: str) -> dict[str, Any]:
            raise OSError(5, "input/output error")

        kept[2].commit = failing  # type: ignore[method-assign]
        with pytest.raises(NotSwitched, match=f":{servers[2].port}.*every edge serves what it served before"):
            await clients.activate("default", "v2")
        for each in kept:
            assert await text_of(each.find(Request("GET", "/a"))) == b"one"
        kept[2].commit = real  # type: ignore[method-assign]
        await clients.activate("default", "v2")


async def test_two_activations_at_once_end_with_all_edges_on_one_release(tmp_path: Path) -> None:
    async with fleet(tmp_path, 3) as (clients, kept, _):
        root = folder(tmp_path, {"a": b"one"})
        await push(clients, root, "v1")
        folder(tmp_path, {"a": b"two"})
        await push(clients, root, "v2")
        results = await asyncio.gather(
            clients.activate("default", "v1"), clients.activate("default", "v2"), return_exceptions=True
        )
        served = {
            await text_of(each.find(Request("GET", "/a"))) if each.find(Request("GET", "/a")) else None for each in kept
        }
        assert len(served) == 1
        if all(isinstance(result, NotSwitched) for result in results):
            assert "another activation" in str(results[0])
            assert served == {None}


async def test_the_api_refuses_with_reasons(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as (clients, _, __):
        point = clients.points[0]
        for method, path, more, status in [
            ("PUT", "/v1/push/objects/zz?offset=0", {"data": b"x"}, 400),
            ("PUT", f"/v1/push/objects/{hexof(b'x')}?offset=-1", {"data": b"x"}, 400),
            ("PUT", f"/v1/push/objects/{hexof(b'x')}?offset=0", {"data": b"x"}, 404),
            (
                "PUT",
                f"/v1/push/objects/{hexof(b'x')}?offset=0",
                {"data": b"x", "headers": {"Content-Digest": "sha-256=:AAAA:"}},
                400,
            ),
            ("PUT", f"/v1/push/manifests/{hexof(b'{}')}?offset=0&size=2", {"data": b"{}"}, 400),
            ("PUT", f"/v1/push/manifests/{hexof(b'{}')}?offset=0&size=99999999999", {"data": b"{}"}, 400),
            ("POST", "/v1/push/prepare", {"json": {"site": "..", "release": "v", "transaction": "t"}}, 400),
            ("POST", "/v1/push/prepare", {"json": {"site": "s"}}, 400),
            ("POST", "/v1/push/commit", {"json": {"site": "s", "transaction": "t"}}, 409),
            ("POST", "/v1/push/gc", {"json": {"keep": -1}}, 400),
            ("POST", "/v1/push/gc", {"data": b"nonsense"}, 400),
        ]:
            with pytest.raises(PointFailed) as caught:
                await point.ask(method, path, **more)  # type: ignore[arg-type]
            assert caught.value.status == status, path


async def test_an_edge_that_is_not_there_is_named() -> None:
    async with Fleet(["http://127.0.0.1:9"]) as clients:
        with pytest.raises(PointFailed, match=r"127\.0\.0\.1:9: no answer"):
            await clients.points[0].ask("GET", "/v1/push/releases", tries=1)


def test_urls_are_checked() -> None:
    with pytest.raises(ConfigError, match="http://"):
        Fleet(["127.0.0.1:9000"])
    with pytest.raises(ConfigError, match="once"):
        Fleet(["http://a", "http://a"])
