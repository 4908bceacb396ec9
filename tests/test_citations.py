"""Every section of a document that code or tests cite exists, and every link between documents resolves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("core", "models", "preprocessors", "local", "api_clients", "nodes", "tests", "tools", "benchmarks", "workshop")
SERVICES = sorted(page.stem for page in (ROOT / "docs" / "services").glob("*.md") if page.stem != "README")

_NUMBER = r"\d+(?:\.\d+)*"
_CITED = re.compile(rf"(docs/[\w/.-]+\.md)(?:\s+({_NUMBER}(?:(?:,\s*|-){_NUMBER})*))?")
_HEADING = re.compile(rf"^#+ ({_NUMBER})\.? ", re.MULTILINE)
# A number in parentheses in a comment or docstring: a section of which document?
_BARE = re.compile(rf"\((?:section )?\d+\.\d+(?:, {_NUMBER})*\)|\(\d+, row \d+\)|\bseeds? 00\d\b|\b[Ss]ection \d")
_BARE_SERVICE = re.compile(r"\(\d+(?:, \d+)*\)")
_NAMELESS = re.compile(rf"(?<![\w/])(?:{'|'.join(SERVICES)})\.md\b")
_LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")


def sources() -> list[Path]:
    return sorted(
        path
        for room in CODE
        if (ROOT / room).is_dir()
        for path in (ROOT / room).rglob("*.py")
        if path.stem != "test_citations"
    )


def documents() -> list[Path]:
    top = [*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md")]
    return sorted([*top, *(ROOT / "docs").rglob("*.md"), *(ROOT / "web" / "docs").glob("*.md")])


def sections(document: str) -> set[str]:
    return set(_HEADING.findall((ROOT / document).read_text(encoding="utf-8")))


def cited(numbers: str) -> Iterator[str]:
    """`2, 7.2` names two sections, and `2-6` every whole number between."""
    for part in re.split(r",\s*", numbers):
        first, _, last = part.partition("-")
        yield from [str(number) for number in range(int(first), int(last) + 1)] if last else [first]


def prose(path: Path) -> Iterator[str]:
    """Comments and docstrings, where a number in parentheses would be a citation."""
    text = path.read_text(encoding="utf-8")
    yield from re.findall(r'"""(.*?)"""', text, re.DOTALL)
    yield from re.findall(r"(?:^|\s)#\s(.*)$", text, re.MULTILINE)


def unresolved(text: str) -> list[str]:
    """The citations in a text whose document or section does not exist."""
    joined = re.sub(r"\n\s*(?:# )?", " ", text)
    missing = []
    for document, numbers in _CITED.findall(joined):
        if not (ROOT / document).is_file():
            missing.append(document)
        elif numbers:
            missing += [f"{document} {number}" for number in cited(numbers) if number not in sections(document)]
    return missing


def test_a_citation_that_does_not_resolve_is_found() -> None:
    assert unresolved("see docs/services/modelslab.md 3.4, 99") == ["docs/services/modelslab.md 99"]
    assert unresolved("see docs/services/scenario.md 2-6") == []
    assert unresolved("see docs/nothing.md 1") == ["docs/nothing.md"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_cited_section_exists(path: Path) -> None:
    assert unresolved(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_citation_lacks_its_document(path: Path) -> None:
    for text in prose(path):
        assert not _BARE.findall(text), "name the document, such as docs/services/modelslab.md 3.4"
        if {"api_clients", "services", "fake_services"} & set(path.relative_to(ROOT).parts):
            assert not _BARE_SERVICE.findall(text), "name the document, such as docs/services/qolaba.md 4"
        assert not _NAMELESS.findall(text), "name the document with its folder, such as docs/services/modelslab.md"


def anchor(heading: str) -> str:
    """The id that Markdown renderers give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_resolves(path: Path) -> None:
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = unquote(link).partition("#")
        found = path.parent / target if target else path
        assert found.exists(), link
        if fragment and found.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, link


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for named in re.findall(r"`((?:tests|benchmarks|tools|core|nodes|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / named).is_file(), named


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_each_decision_has_a_title_a_date_and_three_parts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# \S.*\n\nDate: \d{4}-\d{2}-\d{2}\n\n## Context\n", text)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+", path.stem)


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
