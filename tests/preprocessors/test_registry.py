"""Every modality has a detector, whose declaration holds together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.canny import Canny
from controlstack.preprocessors.detectors.registry import detector_for
from controlstack.preprocessors.parameters import ChoiceParameter, FloatParameter, IntParameter, resolve


@pytest.mark.parametrize("modality", Modality)
def test_a_detector_is_one_of_its_modality_and_its_defaults_are_allowed(modality: Modality) -> None:
    detector = detector_for(modality)
    assert detector.modality is modality
    assert detector.summary.endswith(".") and detector.methods
    assert len({method.name for method in detector.methods}) == len(detector.methods)
    parameters = detector.parameters()
    assert resolve(parameters, {}) == {parameter.name: parameter.default for parameter in parameters}


@pytest.mark.parametrize("modality", Modality)
def test_methods_that_share_a_parameter_mean_the_same(modality: Modality) -> None:
    """They share a widget: what one accepts there, all accept."""
    seen: dict[str, object] = {}
    for method in detector_for(modality).methods:
        for parameter in method.parameters:
            assert parameter.tooltip.endswith("."), parameter.name
            match parameter:
                case IntParameter() | FloatParameter():
                    domain: object = (type(parameter), parameter.minimum, parameter.maximum)
                case ChoiceParameter():
                    domain = parameter.choices
                case _:
                    domain = type(parameter)
            assert seen.setdefault(parameter.name, domain) == domain, f"{method.name}.{parameter.name}"


def test_a_second_method_of_a_detector_can_come_after_its_saved_widgets() -> None:
    class Named(Canny):
        name = "opencv"

    class Other(Canny):
        name = "other"
        parameters = (IntParameter("extra", 1, 0, 9, "Extra."),)

    saved = [parameter.name for parameter in Detector(Modality.CANNY, "", (Canny(),)).parameters()]
    first = Detector(Modality.CANNY, "", (Named(), Other()))
    last = replace(first, method_last=True)
    assert [parameter.name for parameter in first.parameters()] == ["method", *saved, "extra"]
    assert [parameter.name for parameter in last.parameters()] == [*saved, "extra", "method"]
    assert resolve(last.parameters(), {})["method"] == "opencv"
