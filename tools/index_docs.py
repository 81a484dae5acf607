"""Write the index pages of docs/how-to, docs/reference and docs/decisions from the pages' own titles."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
INTRO = {
    "how-to": "# How-to guides\n\nOne task each; every snippet runs in the tests.\n",
    "reference": "# Reference\n\nEvery option, its default and where that comes from.\n",
    "decisions": "# Decisions\n\nChoices that somebody may question. A record is not rewritten; a later one replaces it.\n",
}


def title(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return path.stem


def page(folder: str) -> str:
    lines = [INTRO[folder]]
    lines += [
        f"- [{title(path)}]({path.name})" for path in sorted((DOCS / folder).glob("*.md")) if path.name != "index.md"
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    for folder in INTRO:
        (DOCS / folder / "index.md").write_text(page(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
