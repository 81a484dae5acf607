"""Set-up for `make`: a virtual environment with every dependency, and the peers that tests and benchmarks compare with.

Standard library only, as it runs before anything is installed. Nothing outside the virtual environment is changed, but for Debian
packages of the peers when we are root and apt is there; their daemons are kept from starting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "redis-server": "redis-server",
    "varnishd": "varnish",
    "wrk": "wrk",
    "strace": "strace",
}
POLICY = Path("/usr/sbin/policy-rc.d")


def run(*command: str, **settings: object) -> int:
    return subprocess.run(command, check=False, **settings).returncode  # type: ignore[call-overload]  # keywords pass through


def apt(*packages: str) -> bool:
    """Install Debian packages without starting what they bring; False where that is not possible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        run("apt-get", "update", "-qq", env=quiet, stdout=subprocess.DEVNULL)
        code = run(
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            *packages,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
        return code == 0
    finally:
        if ours:
            POLICY.unlink()


def venv(folder: str) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  # this file runs on whatever Python `make` finds
        print(
            f"blocks needs Python 3.11 or newer, not {sys.version.split()[0]}. Try: make PYTHON=python3.12",
            file=sys.stderr,
        )
        return 1
    python = f"{folder}/bin/python"
    if run(python, "-c", "import pip", stderr=subprocess.DEVNULL) if Path(python).exists() else True:
        print(f"-- making {folder}", flush=True)
        if run(sys.executable, "-m", "venv", "--clear", folder, stderr=subprocess.DEVNULL):
            print("-- this Python has no venv module; asking apt for python3-venv", flush=True)
            if not apt("python3-venv") or run(sys.executable, "-m", "venv", "--clear", folder):
                print("cannot make a virtual environment: install python3-venv", file=sys.stderr)
                return 1
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    print("-- installing blocks, its extras and the tools", flush=True)
    if run(*pip, "install", "--upgrade", "pip>=25.1"):  # the first that knows dependency groups
        return 1
    return run(*pip, "install", "-c", "constraints.txt", "-e", ".[all]", "--group", "dev")


def peers() -> int:
    missing = {program: package for program, package in PEERS.items() if shutil.which(program) is None}
    if not missing:
        return 0
    print(f"-- installing peers: {', '.join(missing)}", flush=True)
    if not apt(*missing.values()):
        for package in missing.values():  # one that is not there must not cost the others
            apt(package)
    for program in missing:
        if shutil.which(program) is None:
            print(
                f"-- skipped: {program} cannot be installed (no root or no apt); tests that need it say so", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(venv(sys.argv[2]) if sys.argv[1] == "venv" else peers())
