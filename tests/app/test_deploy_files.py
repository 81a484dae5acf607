"""The operators' files: each is parsed, what it names exists, and what two of them say agrees."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from blocks.app.cli import cli
from blocks.core.quantities import seconds

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
STACK = DEPLOY / "stack.toml"


def command_of(words: list[str]) -> click.Command:
    """The command that ``words`` after ``blocks`` name; every flag of theirs is one of its own."""
    context = click.Context(cli)
    found = cli.get_command(context, words[0])
    assert found is not None, words
    known = {name for param in found.params for name in (*param.opts, *param.secondary_opts)}
    for word in words[1:]:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"blocks {words[0]} has no {word}"
    return found


# -- systemd


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections[section].setdefault(key, []).append(value)
    return sections


def test_the_unit_runs_commands_that_there_are():
    service = unit("blocks.service")["Service"]
    for key in ("ExecStart", "ExecReload"):
        words = shlex.split(service[key][0])
        assert words[0] == "/opt/blocks/bin/blocks"
        command_of(words[1:])
    assert service["Type"] == ["notify"]
    assert service["KillMode"] == ["mixed"]  # workers are told by their parent; a second signal would hurry them
    assert service["RestartPreventExitStatus"] == ["2 3"]


def test_the_socket_is_the_one_that_the_stack_listens_on():
    name = unit("blocks.socket")["Socket"]["FileDescriptorName"][0]
    environment = dict(pair.split("=", 1) for pair in unit("blocks.service")["Service"]["Environment"][0].split())
    assert environment["BLOCKS_LISTEN"] == f"fd:{name}"
    assert "BLOCKS_LISTEN" in STACK.read_text()
    admin = environment["BLOCKS_ADMIN"].removeprefix("http://")
    assert f"BLOCKS_ADMIN_LISTEN:-{admin}" in STACK.read_text()


def test_the_manager_waits_longer_than_the_drain():
    drain = re.search(r'^drain_timeout = "(\w+)"', STACK.read_text(), re.M)
    assert drain is not None
    assert seconds(unit("blocks.service")["Service"]["TimeoutStopSec"][0]) > seconds(drain[1])


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path):
    for name in ("blocks.service", "blocks.socket"):
        text = (DEPLOY / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/blocks/bin/blocks", sys.executable))
    units = [str(tmp_path / name) for name in ("blocks.service", "blocks.socket")]
    found = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in (found.stdout + found.stderr).splitlines() if str(tmp_path) in line or "blocks." in line]
    assert (found.returncode, said) == (0, [])
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", units[0]]
    found = subprocess.run(security, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout[-500:]


# -- the stack


@pytest.mark.parametrize("listen", [None, "fd:web", "0.0.0.0:8080"])
def test_the_stack_is_right_without_a_warning(listen: str | None, monkeypatch: pytest.MonkeyPatch):
    if listen is not None:
        monkeypatch.setenv("BLOCKS_LISTEN", listen)
    found = CliRunner().invoke(cli, ["check", "--strict", str(STACK)])
    assert found.exit_code == 0, found.output


# -- Docker


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def last(name: str) -> str:
    return next(words for instruction, words in reversed(instructions()) if instruction == name)


def test_the_image_runs_as_nobody_in_particular_and_says_how_well_it_is():
    for instruction, words in instructions():
        if instruction == "FROM":
            image = words.split()[0]
            assert ":" in image, f"{image} is whatever is newest"
            assert not image.endswith(":latest")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    assert last("STOPSIGNAL") == "SIGTERM"
    entry, run = json.loads(last("ENTRYPOINT")), json.loads(last("CMD"))
    assert entry == ["blocks"]
    command_of(run)
    probe = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert probe[0] == "blocks"
    command_of(probe[1:])
    copied = [words.split() for name, words in instructions() if name == "COPY"]
    assert run[1] in [words[-1] for words in copied]


def test_everything_that_is_copied_is_there_and_let_through():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name, words in instructions():
        if name == "COPY" and not words.startswith("--from"):
            for source in words.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source


def test_the_image_listens_where_it_exposes():
    environment = dict(pair.split("=", 1) for pair in shlex.split(last("ENV")))
    assert environment["BLOCKS_LISTEN"].endswith(f":{last('EXPOSE')}")


@pytest.mark.integration
def test_a_wheel_is_built_from_what_the_image_copies(tmp_path: Path):
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    for name, words in instructions():
        if name == "COPY" and not words.startswith("--from") and "deploy" not in words:
            for source in words.split()[:-1]:
                skip = shutil.ignore_patterns("__pycache__")
                path = ROOT / source
                if path.is_dir():
                    shutil.copytree(path, tmp_path / source, ignore=skip)
                else:
                    shutil.copy(path, tmp_path / source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "out").glob("blocks-*.whl")
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert {"blocks/app/cli.py", "blocks/py.typed"} <= set(names)


# -- Compose


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_builds_the_image_and_mounts_the_stack():
    services = compose()["services"]
    own = services["blocks"]
    assert (DEPLOY / own["build"]["context"]).resolve() == ROOT
    assert (ROOT / own["build"]["dockerfile"]).exists()
    assert own["ports"][0].rpartition(":")[2] == last("EXPOSE")
    source, target, mode = own["volumes"][0].split(":")
    assert (DEPLOY / source).resolve() == STACK
    assert (target, mode) == (json.loads(last("CMD"))[1], "ro")
    assert set(own["depends_on"]) <= set(services)
    assert {volume.split(":")[0] for volume in own["volumes"][1:]} <= set(compose()["volumes"])
    for name, value in own["environment"].items():
        assert f"${{{name}:-" in STACK.read_text()
        host, _, port = value.removeprefix("http://").partition(":")
        assert services[host]["command"][-1] == port
    drain = re.search(r'^drain_timeout = "(\w+)"', STACK.read_text(), re.M)
    assert drain is not None
    assert seconds(own["stop_grace_period"]) > seconds(drain[1])
    assert (own["read_only"], own["cap_drop"]) == (True, ["ALL"])


# -- Kubernetes


def manifest(kind: str) -> Any:
    return next(one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if one["kind"] == kind)


def test_every_object_says_what_it_is():
    versions = {"ConfigMap": "v1", "Deployment": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1"}
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert {one["kind"]: one["apiVersion"] for one in found} == versions
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", one["metadata"]["name"]) for one in found)


def test_the_selectors_find_the_pods():
    template = manifest("Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    for selector in (
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_the_pod_runs_commands_that_there_are_on_ports_that_agree(tmp_path: Path):
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command_of(container["args"])
    probes = [container[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    for words in (*probes, container["lifecycle"]["preStop"]["exec"]["command"]):
        assert words[0] == "blocks"
        command_of(words[1:])
    text = manifest("ConfigMap")["data"]["stack.toml"]
    (port,) = container["ports"]
    assert f'listen = "0.0.0.0:{port["containerPort"]}"' in text
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert container["args"][1] == f"{mounts['config']}/stack.toml"
    (tmp_path / "stack.toml").write_text(text)
    found = CliRunner().invoke(cli, ["check", "--strict", str(tmp_path / "stack.toml")])
    assert found.exit_code == 0, found.output


def test_the_pod_has_time_to_leave_and_no_privilege():
    text = manifest("ConfigMap")["data"]["stack.toml"]
    asked = sum(seconds(value) for value in re.findall(r'^(?:drain_timeout|lame_duck) = "(\w+)"', text, re.M))
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > asked + 5
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(last("USER").split(":")[0])
    own = pod["containers"][0]["securityContext"]
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"], own["capabilities"]) == (
        False,
        True,
        {"drop": ["ALL"]},
    )


@pytest.mark.skip(reason="hadolint and kubeconform are not on PyPI; a daemon or a cluster is not here")
def test_the_image_is_built_and_the_manifest_is_applied():
    """``docker build -f deploy/Dockerfile .`` and ``kubectl apply --dry-run=server -f deploy/kubernetes.yaml``."""
