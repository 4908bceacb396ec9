"""Every kind of problem has a code of its own, which the editor translates by, and a template that is a sentence."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "models", "preprocessors", "local", "api_clients", "nodes")


def text_of(node: ast.expr) -> str:
    """A string literal; a constant that an f-string puts into it is left as its name in braces."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return ast.literal_eval(node)


def declared_kinds() -> list[tuple[str, str]]:
    """(code, template) of every `ProblemKind(...)` in the pack."""
    found: list[tuple[str, str]] = []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ProblemKind":
                code, template = (text_of(argument) for argument in node.args)
                found.append((code, template))
    return found


KINDS = declared_kinds()


def test_no_two_kinds_share_a_code() -> None:
    assert len(KINDS) > 100
    assert [code for code, count in Counter(code for code, _ in KINDS).items() if count > 1] == []


@pytest.mark.parametrize(("code", "template"), KINDS, ids=[code for code, _ in KINDS])
def test_a_template_is_whole_sentences(code: str, template: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]+", code)
    assert template.endswith((".", "{remedy}", "{how}"))
    assert "  " not in template and not re.search(r"\bpicture", template)
