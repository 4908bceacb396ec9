"""What a user sets is checked before a detector sees it: ComfyUI checks no value that comes over a link."""

from __future__ import annotations

import pytest
from controlstack.core.errors import InvalidRequest, UnknownChoice
from controlstack.preprocessors.parameters import (
    ChoiceParameter,
    FloatParameter,
    IntParameter,
    SwitchParameter,
    TextParameter,
    resolve,
)

DECLARED = (
    IntParameter("count", 3, 1, 9, ""),
    FloatParameter("share", 0.5, 0.0, 1.0, ""),
    SwitchParameter("safe", True, ""),
    ChoiceParameter("kind", ("fine", "coarse"), ""),
    TextParameter("text", "", ""),
)
DEFAULTS = {"count": 3, "share": 0.5, "safe": True, "kind": "fine", "text": ""}


@pytest.mark.parametrize("given", [{}, dict.fromkeys(DEFAULTS)])
def test_what_is_missing_or_none_has_its_default(given: dict) -> None:
    assert resolve(DECLARED, given) == DEFAULTS


def test_what_is_given_counts_even_if_it_is_falsy() -> None:
    given = {"share": 0.0, "safe": False, "kind": "coarse", "text": ""}
    assert resolve(DECLARED, given) == {**DEFAULTS, **given}


def test_what_is_not_declared_is_left_out() -> None:
    assert resolve(DECLARED, {"gone": 1}) == DEFAULTS


def test_an_unknown_word_names_the_choices() -> None:
    with pytest.raises(UnknownChoice, match=r"kind is 'rough'\. It must be one of fine, coarse"):
        resolve(DECLARED, {"kind": "rough"})


def test_all_numbers_out_of_range_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(DECLARED, {"count": 10, "share": float("nan")})
    assert [str(problem) for problem in caught.value.problems] == [
        "count is 10. It must be a number from 1 to 9. Set it to 9.",
        "share is nan. It must be a number from 0 to 1. Set it to 0.5.",
    ]
    assert [problem.suggestion for problem in caught.value.problems] == [9, 0.5]
