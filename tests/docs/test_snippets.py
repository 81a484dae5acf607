"""Every ```python block of the documentation runs by itself, and so does every example that says it can."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

from blocks.app.stack import Stack
from blocks.testing import Kit, VirtualLoop

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets() -> list:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start(1)].count("\n") + 1
            found.append(pytest.param(path, line, match[1], id=f"{path.relative_to(ROOT)}:{line}"))
    return found


def run(path: Path, line: int, code: str) -> None:
    """Run a snippet as a module; one that awaits at its top runs in a loop. Its tests run too, those that ask for ``blocks`` as the plug-in does it."""
    tree = ast.parse("\n" * (line - 1) + code, str(path))
    compiled = compile(tree, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace = {"__name__": "snippet", "__file__": str(path)}
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(asyncio.wait_for(eval(compiled, namespace), 30))  # our own documentation
    else:
        exec(compiled, namespace)  # our own documentation
    for name, value in list(namespace.items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(value):
            if list(inspect.signature(value).parameters) == ["blocks"]:
                with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                    runner.run(with_kit(value))
            elif not inspect.signature(value).parameters:
                asyncio.run(asyncio.wait_for(value(), 30))


async def with_kit(test) -> None:
    async with Kit(seed=1) as blocks:
        await test(blocks)


@pytest.mark.parametrize(("path", "line", "code"), snippets())
def test_the_snippet_runs(path: Path, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run(path, line, code)


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_the_stacks_that_are_shown_are_fine(name: str, tmp_path: Path):
    text = (ROOT / name).read_text(encoding="utf-8")
    for number, shown in enumerate(re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(shown, encoding="utf-8")
        assert not Stack.load(path).warnings


def test_links_between_pages_lead_somewhere():
    broken = []
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", path.read_text(encoding="utf-8")):
            if not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert not broken


def test_every_page_is_in_its_index():
    missing = []
    for folder in ("how-to", "reference", "decisions"):
        index = (ROOT / "docs" / folder / "index.md").read_text(encoding="utf-8")
        missing += [
            path.name
            for path in (ROOT / "docs" / folder).glob("*.md")
            if path.name != "index.md" and f"({path.name})" not in index
        ]
    assert not missing, f"python tools/index_docs.py writes the indexes; missing: {missing}"
