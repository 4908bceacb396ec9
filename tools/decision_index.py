"""The index of docs/decisions, made from the title and the date of each decision."""

from __future__ import annotations

import re
from pathlib import Path

INDEX = Path(__file__).resolve().parent.parent / "docs" / "decisions" / "README.md"
_HEAD = """# Decisions

One file a decision: what was decided, when, and why. `python dev.py docs` writes this page.

| | decision | date |
|---|---|---|
"""


def index_page(folder: Path) -> str:
    """The page that lists every NNNN-title.md in `folder`.

    Raises ValueError for a file without a `# Title` in its first line or without a `Date: YYYY-MM-DD` line.
    """
    return _HEAD + "".join(_row(path) for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.md")))


def _row(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    title, date = re.match(r"# (.+)", text), re.search(r"^Date: (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    if not title or not date:
        raise ValueError(f"{path.name} needs '# Title' as its first line and a line 'Date: YYYY-MM-DD'.")
    return f"| [{path.name[:4]}]({path.name}) | {title[1].strip()} | {date[1]} |\n"
