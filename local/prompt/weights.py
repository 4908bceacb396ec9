"""Parses the weights in prompts, with ComfyUI's syntax."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# The factor of a pair of parentheses without a number.
PARENTHESES_FACTOR = 1.1

_TOKEN = re.compile(r"\\[()]|[()]|[^\\()]+|\\")
_NUMBER = re.compile(r":\s*([+-]?\d*\.?\d+)\s*$")


def parse_weights(text: str) -> list[tuple[str, float]]:
    """Split a prompt into pieces with their weights; without parentheses it is one piece of weight 1.

    Each pair of parentheses `(word)` multiplies the weight by 1.1. `(word:1.3)` sets it to 1.3, whatever surrounds it.
    `\\(` and `\\)` are literal parentheses, and so is a parenthesis without a partner. Square brackets have no meaning.
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
    """The index of the closing parenthesis, by the index of the opening one."""
    partners: dict[int, int] = {}
    unclosed: list[int] = []
    for index, token in enumerate(tokens):
        if token == "(":
            unclosed.append(index)
        elif token == ")" and unclosed:
            partners[unclosed.pop()] = index
    return partners


def _level(
    tokens: list[str], partners: dict[int, int], start: int, end: int, weight: float
) -> Iterator[tuple[str, float]]:
    """The pieces between two indices of tokens, with their weights."""
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
        inner = float(number[1]) if number else weight * PARENTHESES_FACTOR
        yield from _level(tokens, partners, index + 1, close, inner)
        index = close + 1
