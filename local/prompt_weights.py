"""The weights users write into prompts, as ComfyUI reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# One level of parentheses without a number.
RAISE = 1.1

_TOKEN = re.compile(r"\\[()]|[()]|[^\\()]+|\\")
_NUMBER = re.compile(r":\s*([+-]?\d*\.?\d+)\s*$")


def parse_weights(text: str) -> list[tuple[str, float]]:
    """The prompt in pieces, each with its weight; without parentheses it is one piece of weight 1.

    `(word)` multiplies by 1.1 on every level and `(word:1.3)` sets 1.3, whatever stands around it. `\\(` and `\\)` are
    parentheses of the text; a parenthesis without its partner is one, too. Square brackets mean nothing.
    """
    tokens = _TOKEN.findall(text)
    pieces: list[tuple[str, float]] = []
    for piece, weight in _level(tokens, _partners(tokens), 0, len(tokens), 1.0):
        if pieces and pieces[-1][1] == weight:
            pieces[-1] = (pieces[-1][0] + piece, weight)
        elif piece:
            pieces.append((piece, weight))
    return pieces or [("", 1.0)]


def _partners(tokens: Sequence[str]) -> dict[int, int]:
    """Where the parenthesis that is opened at a token is closed."""
    partners, open_ones = {}, []
    for index, token in enumerate(tokens):
        if token == "(":
            open_ones.append(index)
        elif token == ")" and open_ones:
            partners[open_ones.pop()] = index
    return partners


def _level(
    tokens: list[str], partners: dict[int, int], start: int, end: int, weight: float
) -> Iterator[tuple[str, float]]:
    index = start
    while index < end:
        token = tokens[index]
        close = partners.get(index)
        if close is None:
            yield token.removeprefix("\\") if token in ("\\(", "\\)") else token, weight
            index += 1
            continue
        number = _NUMBER.search(tokens[close - 1]) if close - 1 > index else None
        if number:
            tokens[close - 1] = tokens[close - 1][: number.start()]
        inner = float(number[1]) if number else weight * RAISE
        yield from _level(tokens, partners, index + 1, close, inner)
        index = close + 1
