"""Several workers reload as one, under load: a version that one of them cannot have is nobody's, whatever is wrong, whoever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from app.test_run_process import ask, running, text
from integration.operated import Load, Process, backends, until

pytestmark = pytest.mark.integration

# An application that one worker starts slowly: it says who it is, and waits for a file.
SLOW = '''
import asyncio, os
from pathlib import Path

HERE = Path(__file__).parent

class Slow:
    async def __aenter__(self):
        (HERE / f"preparing-{os.getpid()}").touch()
        while not (HERE / "go").exists():
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *error):
        pass

    async def __call__(self, request):
        from blocks import Response
        return Response(200, {}, b"slow")

slow = Slow()

class Choosy(Slow):
    """Starts in no process but the one that is named in a file."""
    async def __aenter__(self):
        if (HERE / "choice").read_text() != str(os.getpid()):
            raise OSError("not in this process")

choosy = Choosy()
'''


def workers_of(process: Process) -> list[int]:
    """The pids of the workers, the first first."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found][:2]


async def digests(admin: str) -> list[str]:
    """What each worker says that it has in force; a worker that is away is missing."""
    _, status = await ask(admin, "/v1/status")
    return [row["body"]["config"]["digest"] for row in status["workers"] if row["status"] == 200]


async def errors(admin: str) -> list[str]:
    _, status = await ask(admin, "/v1/status")
    return [row["body"]["config"]["last_error"] for row in status["workers"] if row["status"] == 200]


async def eventually(said: Any, within: float = 30.0) -> None:
    """Wait until awaiting ``said()`` gives something true."""
    async with asyncio.timeout(within):
        while not await said():
            await asyncio.sleep(0.02)


async def test_two_workers_reload_as_one_under_load(tmp_path: Path):
    path = tmp_path / "stack.toml"
    (tmp_path / "slowly.py").write_text(SLOW)
    gateway = tmp_path / "gateway.toml"
    async with backends(tmp_path, 2) as (a, b):
        path.write_text(text(a.url))
        async with running(path, "--workers", "2", "--admin", "127.0.0.1:0") as process:
            admin = process.ready["admin"]

            async def reload() -> tuple[int, Any]:
                status, body = await ask(admin, "/v1/reload", "POST")
                (row,) = body["workers"]
                return status, row["body"]

            async def agree() -> bool:
                found = await digests(admin)
                return len(found) == 2 and len(set(found)) == 1

            async with Load(process.port, clients=6) as load:
                await load.answered(50)
                first = (await digests(admin))[0]

                # five that are right
                seen = {first}
                for number, urls in enumerate(([b.url], [a.url, b.url], [b.url, a.url], [a.url], [b.url])):
                    path.write_text(text(*urls))
                    status, body = await reload()
                    assert (status, body["status"]) == (200, "reloaded")
                    assert set(await digests(admin)) == {body["digest"]}, number
                    seen.add(body["digest"])
                    await load.answered(30)
                assert len(seen) == 4  # two are as earlier ones
                before = set(await digests(admin))

                # one that is wrong, by the API and by a signal: all say so
                path.write_text(text(b.url).replace('"users"', '"nobody"', 1))
                status, body = await reload()
                assert status == 422
                assert "no service named 'nobody'" in body["report"]
                assert body["complaints"][0]["line"]
                assert set(await digests(admin)) == before
                assert all("no service named 'nobody'" in one for one in await errors(admin))
                path.write_text(text(a.url))
                process.signal(signal.SIGHUP)

                async def in_force() -> bool:
                    return before.isdisjoint(await digests(admin)) and await agree()

                await eventually(in_force)
                assert set(await errors(admin)) == {""}
                before = set(await digests(admin))

                # one that only the other worker refuses: what the first had prepared is forgotten, in all
                readers = workers_of(process)
                choice = tmp_path / "choice"
                choice.write_text(str(readers[0]))
                path.write_text(text(a.url, settings='[apps.x]\npython = "slowly:choosy"'))
                status, body = await reload()
                assert status == 422
                assert "[apps.x] cannot start" in body["report"]
                assert "not in this process" in body["report"]
                assert set(await digests(admin)) == before
                await load.answered(30)

                # an address that somebody else has
                with socket.create_server(("127.0.0.1", 0)) as held:
                    taken = f"127.0.0.1:{held.getsockname()[1]}"
                    path.write_text(text(a.url, settings=f'[servers.more]\nlisten = "{taken}"\nhandler = "users"\n'))
                    status, body = await reload()
                assert status == 422
                assert f"cannot listen on {taken}" in body["report"]

                # a gateway's own file is read once, too
                gateway.write_text('[[routes]]\npath = "/"\nservice = "users"\nmethods = ["GET"]\n')
                path.write_text(
                    text(b.url).replace(
                        '[gateways.front]\n[[gateways.front.routes]]\npath = "/"\nservice = "users"\n', ""
                    )
                    + '[gateways.front]\nfile = "gateway.toml"\n'
                )
                assert (await reload())[0] == 200
                assert await agree()
                before = set(await digests(admin))
                assert (load.lost, load.refused, set(load.statuses)) == ([], 0, {200})

                # one dies while it prepares: nobody changes, and it comes back with what is in force
                path.write_text(text(a.url, settings='[apps.x]\npython = "slowly:slow"'))
                asked = asyncio.create_task(reload())
                reader = readers[0]
                await until(lambda: (tmp_path / f"preparing-{reader}").exists())
                os.kill(reader, signal.SIGKILL)
                status, body = await asked
                assert status == 422
                assert "worker 0 died while it prepared the new version" in body["report"]
                await eventually(agree)
                assert set(await digests(admin)) == before
                (tmp_path / "go").touch()
                status, body = await reload()
                assert status == 200, body
                await eventually(agree)
                assert set(await digests(admin)) == {body["digest"]} != before

                # and whoever comes after that begins with it, though the file is broken by now
                path.write_text("nonsense = [")
                other = workers_of(process)[0]
                os.kill(other, signal.SIGKILL)
                await until(lambda: process.errors.count("worker-died") >= 2)
                await eventually(agree)
                assert set(await digests(admin)) == {body["digest"]}
                await load.answered(30)
                assert set(load.statuses) == {200}
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
            assert "Traceback" not in process.errors
            assert json.loads(json.dumps(process.ready))["workers"] == 2
