"""What holds for every endpoint: the registry, the tables, the declarations of options."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

import pytest
import torch
from controlstack.api_clients.registry import ENDPOINTS, find_endpoint
from controlstack.api_clients.services.options import Option, check_options, declared, option
from controlstack.core.capabilities import Capabilities
from controlstack.core.errors import UnknownChoice
from controlstack.core.modality import Modality
from controlstack.core.request import Detect, GenerationRequest, ImageReference
from controlstack.tests.api_clients.payload_cases import CANNY, GOOD, PICTURE, carried, secret

EVERY = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.target)


def test_the_published_endpoints_keep_their_order_and_are_found_by_class_name_and_by_target() -> None:
    assert [type(endpoint).__name__ for endpoint in ENDPOINTS[:5]] == [
        "ModelsLab",
        "ModelsLabEnterprise",
        "Scenario",
        "QolabaControlNet",
        "QolabaImageToImage",
    ]
    for endpoint in ENDPOINTS:
        assert find_endpoint(type(endpoint).__name__) is find_endpoint(endpoint.target) is endpoint
    with pytest.raises(UnknownChoice, match="ModelsLab Enterprise"):
        find_endpoint("Midjourney")


@EVERY
def test_the_same_request_runs_everywhere_by_rewiring_one_link(endpoint: Any) -> None:
    options = endpoint.options_type()
    assert endpoint.check(GOOD, options) == []
    assert endpoint.build_payload(GOOD, options, carried(endpoint, GOOD, options))


@EVERY
def test_the_table_for_any_options_is_among_the_tables(endpoint: Any) -> None:
    assert endpoint.capabilities(endpoint.options_type()) in endpoint.tables
    assert all(isinstance(table, Capabilities) for table in endpoint.tables)
    assert len({table.target for table in endpoint.tables}) == len(endpoint.tables)


@EVERY
def test_every_kind_of_control_can_run_or_is_refused_with_a_remedy(endpoint: Any) -> None:
    for modality in Modality:
        request = replace(GOOD, controls=(replace(CANNY, modality=modality, detect=Detect.SERVICE),))
        for problem in endpoint.check(request, endpoint.options_type()):
            assert problem.field and str(problem).endswith(".")


@EVERY
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_of_images_is_one_problem_whatever_batch_size_is(endpoint: Any, batch_size: int) -> None:
    """No service accepts a batch, so "set batch_size to match" would not help."""
    batch = replace(CANNY, image=PICTURE.repeat(2, 1, 1, 1))
    problems = endpoint.check(replace(GOOD, controls=(batch,), batch_size=batch_size), endpoint.options_type())
    assert [problem.code for problem in problems] == ["several_images"]
    assert "batch_size" not in str(problems[0])


@EVERY
def test_every_option_is_declared_with_a_tooltip_and_a_default_within_its_limits(endpoint: Any) -> None:
    options = endpoint.options_type()
    names = [name for name in vars(options) if not name.startswith("_")]
    assert names == list(declared(endpoint.options_type))
    assert check_options(options) == []
    for name, (default, declaration) in declared(endpoint.options_type).items():
        assert isinstance(declaration, Option)
        assert declaration.tooltip.endswith(".") and declaration.tooltip.isascii(), name
        assert isinstance(default, (bool, int, float, str)), name
    with pytest.raises(FrozenInstanceError):
        setattr(options, names[0], "x")


@EVERY
def test_authorizing_leaves_the_call_it_was_given_alone(endpoint: Any) -> None:
    call = endpoint.submit({"prompt": "x"}, endpoint.options_type())
    endpoint.authorize(call, secret(api_key="key", api_secret="secret"))
    assert "key" not in str(call.body) and not call.headers


@EVERY
def test_several_maps_for_one_request_are_refused(endpoint: Any) -> None:
    many = replace(CANNY, image=PICTURE.repeat(2, 1, 1, 1))
    found = endpoint.check(replace(GOOD, controls=(many,), batch_size=2), endpoint.options_type())
    assert any("accepts one image for all results" in str(problem) for problem in found)


@EVERY
@pytest.mark.parametrize("shape", [(), (8,), (8, 8, 3), (0, 8, 8, 3), (1, 8, 8, 2), (1, 0, 8, 3)], ids=str)
def test_a_misshapen_image_is_a_problem_and_never_a_crash(endpoint: Any, shape: tuple[int, ...]) -> None:
    image = torch.zeros(shape)
    unit, reference = replace(CANNY, image=image), ImageReference(image)
    for change in ({"controls": (unit, CANNY)}, {"references": (reference,)}, {"init_image": image}, {"mask": image}):
        assert endpoint.check(replace(GOOD, **change), endpoint.options_type())


@dataclass(frozen=True)
class Sample:
    count: int = option(2, "How many.", minimum=1, maximum=4)
    share: float = option(0.5, "How much.", minimum=0.0)
    kind: str = option("a", "Which.", choices=("a", "b"))
    on: bool = option(False, "Whether.")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"count": 5}, "count is 5. It must be from 1 to 4. Set it to 2."),
        ({"share": -1}, "share is -1. It must be at least 0. Set it to 0.5."),
        ({"share": float("nan")}, "share is nan"),
        ({"kind": "c"}, "kind is 'c'. It must be one of a, b."),
        ({"on": "no"}, "on is 'no'. It must be true or false. Set it to false."),
        ({"count": True}, "count is True. It must be a whole number."),
    ],
)
def test_an_option_outside_its_declaration_is_one_sentence(change: dict[str, Any], text: str) -> None:
    (problem,) = check_options(replace(Sample(), **change))
    assert str(problem).startswith(text)


@EVERY
@pytest.mark.parametrize("value", [None, 5.5, {}], ids=str)
def test_an_option_of_a_wrong_kind_is_a_problem_and_not_a_traceback(endpoint: Any, value: Any) -> None:
    request = GenerationRequest(prompt="a lighthouse")
    for name, (default, _) in declared(endpoint.options_type).items():
        if not (isinstance(default, float) and isinstance(value, float)):
            (problem,) = endpoint.check(request, endpoint.options_type(**{name: value}))
            assert problem.field == name and "It must be" in str(problem)


def test_whole_numbers_are_fine_where_fractions_are() -> None:
    assert check_options(Sample(share=1)) == []
