"""A handler's life as a process: one event loop or several workers, a ready line, signals, a bounded drain, an exit code.

SIGTERM or SIGINT: stop accepting, let requests finish, leave; a second one stops now. SIGHUP: reopen logs, reload
certificates, and call the handler's own ``reload()`` if it has one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from blocks.core.errors import BlocksError, ConfigError

from .handler import Handler
from .job import Extend, Job
from .options import Serving
from .server import CannotBind
from .single import SingleJob
from .worker import CANNOT_BIND, CONFIGURATION, FAILURE, FINE, Worker


def run_process(block: str, build: Callable[[], Handler], serving: Serving, *, admin: Extend | None = None) -> NoReturn:
    """Serve what ``build`` returns as ``serving`` says until a signal comes, then exit the process.

    ``build`` runs in each worker, before the event loop serves. ``admin`` adds a block's own routes to the admin API. Exit codes: 0 fine,
    1 failure, 3 configuration, 4 cannot bind, 5 requests were cut as the drain took too long. What was wrong is one line on standard error.
    """
    run_job(SingleJob(block, build, serving, admin))


def run_job(job: Job) -> NoReturn:
    """Do ``job`` until a signal comes, then exit the process, as ``run_process`` does."""
    _raise_descriptor_limit()
    try:
        if job.serving.workers > 1:
            from .workers import supervise

            code = supervise(job)
        else:
            code = run_loop(_alone(job))
    except CannotBind as error:
        code = _say(error, CANNOT_BIND)
    except ConfigError as error:
        code = _say(error, CONFIGURATION)
    except BlocksError as error:
        code = _say(error, FAILURE)
    except KeyboardInterrupt:
        code = FINE
    sys.exit(code)


async def _alone(job: Job) -> int:
    return await Worker(job, lambda line: announce(line, job.serving.ports_file)).run()


def _say(error: BaseException, code: int) -> int:
    print(f"blocks: {error.args[-1] if error.args else error}", file=sys.stderr)
    return code


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` on uvloop where there is one, else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def announce(line: dict[str, Any], ports_file: str | None) -> None:
    """Print the ready line, and write it to the ports file: whole, or not at all. Raises ``ConfigError`` when that cannot be."""
    text = json.dumps(line)
    if ports_file is not None:
        draft = f"{ports_file}.{os.getpid()}.tmp"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(draft, ports_file)
        except OSError as error:
            raise ConfigError(f"the ports file {ports_file} cannot be written: {error.strerror}") from error
    print(text, flush=True)


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system allows: a proxy needs two for each client (nginx: worker_rlimit_nofile)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass
