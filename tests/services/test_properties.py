"""Any request at all, over the sockets: its problems are told and nothing is sent, or the strict double takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from controlstack.core.errors import InvalidRequest
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, ImageReference, ReferenceKind
from controlstack.tests.api_clients.payload_cases import GOOD, MASK, PICTURE, QUICK, any_of, wild_options, wild_requests
from controlstack.tests.services.cases import CASES, Account, Case
from controlstack.tools.fake_services.drawing import one_color
from controlstack.tools.fake_services.running import Services
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

BASES = (
    GOOD,
    replace(GOOD, controls=(ControlUnit(Modality.INPAINT, PICTURE, mask=MASK),)),
    replace(GOOD, references=(ImageReference(PICTURE, 0.6),)),
    replace(GOOD, controls=(), references=(ImageReference(PICTURE, kind=ReferenceKind.FACE),)),
    replace(GOOD, controls=(), init_image=PICTURE, denoise=0.5, width=1024, height=1024),
)
SIZES = ((512, 512), (1024, 1024), (1280, 720), (64, 128), (500, 512))
ADDRESS = ("https://me.example/1.png", "no address")
TEXTS = {
    "model_id": ("fluxdev", "boziorealvisxlv4", "my-model", ""),
    "controlnet_model": ("ghibli", "canny,ghibli"),
    "controlnet_type": ("face", "a,b"),
    "webhook": ("https://me.example/hook", "me"),
    "track_id": ("17", "order_1"),
    "control_image_url": ADDRESS,
    "ip_adapter_image_url": ADDRESS,
    "modelId": ("flux.1-schnell", "model_abc", "model_sdxl", ""),
    "modality": ("sketch", "landscape", "canny:0.5,depth", "canny:2"),
    "modelEpoch": ("000001",),
    "projectId": ("proj",),
    "custom_app_id": ("ap-other",),
    "image_url": ADDRESS,
}
FLUX = {"flux.1-dev": ("auto", "flux-dev"), "flux.1-schnell": ("auto", "flux-schnell"), "fluxdev": ("auto", "flux")}
OVER_SOCKETS = settings(QUICK, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def contradicts_itself(options: Any) -> bool:
    """A word for the family of a model that the contract knows better, or an exchange that undoes another."""
    model = getattr(options, "modelId", "") or getattr(options, "model_id", "")
    family = getattr(options, "model_family", "auto")
    wrong = family not in FLUX[model] if model in FLUX else family.startswith("flux")
    return wrong or getattr(options, "swap_size", False)


@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data(), base=wild_requests(BASES, SIZES), prompt=any_of("a lighthouse", "\u706f\u53f0 \u00fc"))
@OVER_SOCKETS
def test_any_request_is_refused_here_or_taken_there(
    services: Services, tmp_path: Path, case: Case, data: Any, base: Any, prompt: str
) -> None:
    options = data.draw(wild_options(case.endpoint, TEXTS))
    assume(not contradicts_itself(options))
    request = replace(base, prompt=prompt) if base.prompt else base
    double, account = services.of(case.endpoint.service), Account(services.environment, tmp_path)
    double.draw = lambda service, color, wish, kind: [one_color(8, 8, kind)] * wish.count
    arrived, charged = len(double.seen), double.charged
    free = getattr(options, "estimate_only", False)
    try:
        result = account.run(case, request=request, options=vars(options), force_new=True)
    except InvalidRequest as refused:
        event("refused")
        assert refused.problems and len(double.seen) == arrived
        return
    event("taken")
    assert double.charged == charged + (not free) and (free or result.images)


@pytest.fixture(autouse=True)
def drawing_again(services: Services) -> Any:
    """The doubles draw again afterwards."""
    yield
    for double in services.doubles:
        vars(double).pop("draw", None)
