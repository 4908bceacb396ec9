"""A problem is a whole sentence for people, and named values for programs."""

import pytest
from controlstack.core.problems import ProblemKind
from controlstack.core.scheduler import SchedulerName

TOO_HIGH = ProblemKind(
    "too_high", "{field} is {value}, but {target} accepts at most {maximum}. Set it to {suggestion}."
)


def test_a_problem_reads_as_a_sentence_and_keeps_its_values() -> None:
    problem = TOO_HIGH("steps", 60, 50, target="A service", maximum=50)
    assert str(problem) == "steps is 60, but A service accepts at most 50. Set it to 50."
    assert problem.cause == "steps is 60, but A service accepts at most 50."
    assert (problem.code, problem.field, problem.value, problem.suggestion) == ("too_high", "steps", 60, 50)


@pytest.mark.parametrize("arguments", [{}, {"target": "it"}, {"target": "it", "maximum": 1, "minimum": 0}])
def test_a_problem_takes_exactly_the_arguments_of_its_sentence(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="too_high takes"):
        TOO_HIGH("steps", 60, 50, **arguments)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (1048576, "1048576"),
        (True, "on"),
        (SchedulerName.DDIM, "DDIMScheduler"),
        (["canny", "depth"], "canny, depth"),
    ],
)
def test_values_are_written_as_users_see_them(value: object, text: str) -> None:
    assert str(ProblemKind("shown", "It is {value}.")("field", value)) == f"It is {text}."
