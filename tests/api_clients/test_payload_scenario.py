"""Scenario: every documented field, the modality grammar, the families, every documented answer."""

# Long lists read best as text.
# ruff: noqa: SIM905

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
import torch
from controlstack.api_clients.http.messages import Carrier
from controlstack.api_clients.services.endpoint import Phase
from controlstack.api_clients.services.scenario.endpoint import Scenario
from controlstack.api_clients.services.scenario.tables import SINGULAR
from controlstack.core.errors import OutcomeUnknown, RateLimited, ServiceError
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, Detect, ImageReference, Lora, ReferenceKind
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.tests.api_clients.payload_cases import (
    CANNY,
    GOOD,
    MASK,
    OTHER,
    PICTURE,
    QUICK,
    any_of,
    body,
    complaints,
    said,
    secret,
    wild_options,
    wild_requests,
    wire_call,
)
from controlstack.tools.fake_services.contracts import scenario as contract
from hypothesis import assume, given
from hypothesis import strategies as st

SCENARIO = Scenario()
SD15 = {"modelId": "model_abc", "model_family": "sd15"}
SDXL = {"modelId": "model_abc", "model_family": "sdxl"}
DEV = {"modelId": "flux.1-dev"}
DEPTH = replace(CANNY, modality=Modality.DEPTH, strength=0.5)
STYLE = ImageReference(PICTURE, scale=0.6)
REFERRING = replace(GOOD, references=(STYLE, replace(STYLE, scale=0.2)))

# docs/services/scenario.md 3, in the order of the service's schema.
FIELDS = (
    "ipAdapterImageIds controlEnd modality seed modelId ipAdapterType ipAdapterImage scheduler "
    "disableModalityDetection ipAdapterImages imageParentId baseModelId controlStart height imageHide "
    "controlImageId image imageId ipAdapterImageId ipAdapterScale modelEpoch hideResults ipAdapterScales "
    "negativePrompt intermediateImages concepts controlImage guidance numInferenceSteps numSamples width "
    "negativePromptStrength prompt"
).split()
QUERY = ("originalAssets", "dryRun", "projectId")


def sent(request: Any = GOOD, **options: Any) -> dict[str, Any]:
    return body(SCENARIO, request, **options)


def test_every_documented_field_can_be_reached() -> None:
    referring = replace(GOOD, references=(STYLE,))
    reached = {
        *sent(
            replace(referring, negative_prompt="fog", loras=(Lora(remote_id="model_l"),)),
            negativePromptStrength=1.0,
            scheduler="TCDScheduler",
            imageParentId="asset_p",
            baseModelId="flux.1-dev",
            modelEpoch="000001",
        ),
        *sent(referring, image_transfer="upload", control_field="controlImageId"),
        *sent(referring, control_field="controlImage", ip_adapter_fields=SINGULAR),
        *sent(referring, image_transfer="upload", control_field="imageId", ip_adapter_fields=SINGULAR),
    }
    assert len(FIELDS) == 33
    assert reached == set(FIELDS)


def test_every_documented_query_parameter_can_be_reached() -> None:
    call = SCENARIO.submit({}, SCENARIO.options_type(originalAssets=True, estimate_only=True, projectId="proj_1"))
    assert call.query == {"originalAssets": "true", "dryRun": "true", "projectId": "proj_1"}
    assert set(call.query) == set(QUERY)
    contract.GenerateQuery.model_validate(call.query)


def test_the_estimate_is_asked_for_in_the_query_and_costs_nothing() -> None:
    assert not SCENARIO.submit({}, SCENARIO.options_type(estimate_only=True)).paid
    call = SCENARIO.submit({"a": 1}, SCENARIO.options_type())
    assert (call.method, call.path, call.paid, call.query) == ("POST", "/generate/controlnet-ip-adapter", True, {})
    assert "dryRun" not in sent(estimate_only=True)


def test_controls_become_names_with_weights() -> None:
    stack = replace(GOOD, controls=(CANNY, DEPTH, replace(CANNY, modality=Modality.MLSD, strength=0.3)))
    assert sent(stack, **SD15)["modality"] == "canny:1,depth:0.5,lines:0.3"


def test_weights_never_have_an_exponent() -> None:
    assert sent(replace(GOOD, controls=(replace(CANNY, strength=1e-5),)))["modality"] == "canny:0.00001"


NAMES = {
    "openpose": "pose",
    "pose": "pose",
    "mlsd": "lines",
    "segmentation": "seg",
    "normal": "normal-map",
    "qrcode": "illusion",
    "low_quality": "low-quality",
}


@pytest.mark.parametrize(
    ("options", "names"),
    [(SD15, contract.SD15_NAMES), (SDXL, contract.SDXL_NAMES), (DEV, contract.FLUX_NAMES)],
    ids=["sd15", "sdxl", "flux"],
)
def test_each_family_has_its_own_controls_under_the_service_s_names(options: Any, names: list[str]) -> None:
    found = set()
    for modality in Modality:
        request = replace(GOOD, controls=(replace(CANNY, modality=modality),))
        if not complaints(SCENARIO, request, **options):
            name = sent(request, **options)["modality"].removesuffix(":1")
            assert name == NAMES.get(modality.value, modality.value)
            found.add(name)
    assert found == set(names)


def test_up_to_three_controls_one_on_flux_each_kind_once() -> None:
    four = [replace(CANNY, modality=m) for m in (Modality.CANNY, Modality.DEPTH, Modality.POSE, Modality.SCRIBBLE)]
    assert complaints(SCENARIO, replace(GOOD, controls=tuple(four[:3])), **SD15) == ""
    assert "at most 3" in complaints(SCENARIO, replace(GOOD, controls=tuple(four)), **SD15)
    assert "at most 1" in complaints(SCENARIO, replace(GOOD, controls=tuple(four[:2])), **DEV)
    poses = (four[2], replace(CANNY, modality=Modality.OPENPOSE))
    assert "'pose' is used 2 times" in complaints(SCENARIO, replace(GOOD, controls=poses), **SD15)


@pytest.mark.parametrize(
    "text", ["landscape", "character:0.5", "canny:0.5, depth:0.5,lines:0.3", "sketch", "illusion:1"]
)
def test_the_modality_may_be_written_by_hand(text: str) -> None:
    assert sent(modality=text, **SD15)["modality"] == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "options", "part"),
    [
        ("city", SDXL, "character, landscape"),
        ("landscape", DEV, "Each part must be a name"),
        ("canny,depth", DEV, "accepts one name"),
        ("canny,pose,depth,seg", SD15, "at most 3 names"),
        ("landscape,canny", SD15, "A preset cannot be combined with other names"),
        ("canny:0", SD15, "above 0 and at most 1"),
        ("canny:1.5", SD15, "above 0 and at most 1"),
        ("canny:x", SD15, "name:weight"),
        ("hed", SD15, "Each part must be a name"),
        ("canny,canny", SD15, "2 times"),
    ],
)
def test_a_modality_the_family_lacks_is_refused(text: str, options: Any, part: str) -> None:
    assert part in complaints(SCENARIO, modality=text, **options)


def test_a_written_modality_leaves_nothing_of_the_controls_behind() -> None:
    weak = replace(GOOD, controls=(replace(CANNY, strength=0.5),))
    assert "it contains the weights" in complaints(SCENARIO, weak, modality="sketch", **SD15)
    assert "Keep one" in complaints(SCENARIO, replace(GOOD, controls=(CANNY, DEPTH)), modality="sketch", **SD15)


def test_detection_follows_the_control_and_is_never_asked_of_flux() -> None:
    detecting = replace(GOOD, controls=(replace(CANNY, detect=Detect.SERVICE),))
    assert sent(detecting, **SD15)["disableModalityDetection"] is False
    assert sent(**SD15)["disableModalityDetection"] is True
    assert "does not make control maps" in complaints(SCENARIO, detecting, **DEV)
    mixed = replace(GOOD, controls=(replace(CANNY, detect=Detect.SERVICE), DEPTH))
    assert "disableModalityDetection" in complaints(SCENARIO, mixed, **SD15)


def test_windows_are_sent_to_flux_dev_always_and_refused_elsewhere() -> None:
    part = replace(GOOD, controls=(replace(CANNY, start=0.1, end=0.7),))
    assert {k: sent(part, **DEV)[k] for k in ("controlStart", "controlEnd")} == {"controlStart": 0.1, "controlEnd": 0.7}
    assert {k: sent(**DEV)[k] for k in ("controlStart", "controlEnd")} == {"controlStart": 0.0, "controlEnd": 1.0}
    assert "controlEnd" not in sent(**SD15)
    for options in (SD15, SDXL, {"modelId": "flux.1-schnell"}):
        assert "in every step" in complaints(SCENARIO, part, **options)
    assert "Set model_family to flux-dev" in complaints(SCENARIO, part, modelId="model_abc")
    late = replace(GOOD, controls=(replace(CANNY, start=0.92),), steps=150)
    assert "a start of at most 0.9" in complaints(SCENARIO, late, **DEV)


def test_references_are_plural_with_one_scale_each_and_a_batch_is_several() -> None:
    stack = replace(GOOD, references=(replace(STYLE, image=PICTURE.repeat(2, 1, 1, 1)), replace(STYLE, scale=0.2)))
    found = sent(stack)
    assert len(found["ipAdapterImages"]) == 3
    assert found["ipAdapterScales"] == [0.6, 0.6, 0.2]
    assert found["ipAdapterType"] == "style"
    off = replace(GOOD, references=(replace(STYLE, scale=0.0),))
    assert sent(off) == sent()


def test_references_of_two_kinds_are_refused() -> None:
    mixed = (STYLE, replace(STYLE, kind=ReferenceKind.CHARACTER))
    assert "one ipAdapterType" in complaints(SCENARIO, replace(GOOD, references=mixed))
    face = replace(GOOD, references=(replace(STYLE, kind=ReferenceKind.FACE),))
    assert "supports only character, style" in complaints(SCENARIO, face)
    assert "carries one image" in complaints(
        SCENARIO, replace(GOOD, references=(STYLE, STYLE)), ip_adapter_fields=SINGULAR
    )


def test_loras_become_concepts_with_their_epochs() -> None:
    stack = (
        Lora(remote_id="model_a", strength=0.8),
        Lora(remote_id="model_x", strength=0.0),
        Lora(remote_id="model_b"),
    )
    assert sent(replace(GOOD, loras=stack), conceptEpochs="000001,,000003")["concepts"] == [
        {"modelId": "model_a", "scale": 0.8, "modelEpoch": "000001"},
        {"modelId": "model_b", "scale": 1.0, "modelEpoch": "000003"},
    ]
    assert "0 LoRAs are connected" in complaints(SCENARIO, conceptEpochs="000001")


def test_the_number_of_pictures_is_always_sent_because_four_is_the_default() -> None:
    assert sent()["numSamples"] == 1


def test_the_seed_is_text_or_left_out() -> None:
    assert sent(replace(GOOD, seed=2**64 - 1))["seed"] == "18446744073709551615"
    assert "seed" not in sent(random_seed=True)


def test_the_schedulers_are_the_documented_fifteen() -> None:
    able = {n for n in SchedulerName if not complaints(SCENARIO, replace(GOOD, scheduler=SchedulerChoice(n)))}
    missing = {"DDIMInverseScheduler", "IPNDMScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler"}
    assert {n.value for n in SchedulerName} - {n.value for n in able} == missing
    assert sent(replace(GOOD, scheduler=SchedulerChoice(SchedulerName.LCM)))["scheduler"] == "LCMScheduler"
    assert sent(scheduler="TCDScheduler")["scheduler"] == "TCDScheduler"
    assert "scheduler" not in sent()
    both = replace(GOOD, scheduler=SchedulerChoice(SchedulerName.LCM))
    assert "the request asks for LCMScheduler" in complaints(SCENARIO, both, scheduler="TCDScheduler")


def test_sizes_and_guidance_follow_the_family() -> None:
    small, large, strong = replace(GOOD, width=256), replace(GOOD, width=1536), replace(GOOD, guidance_scale=12.0)
    assert "width is 256" in complaints(SCENARIO, small, **SDXL)
    assert "width is 1536" in complaints(SCENARIO, large, **SD15)
    assert complaints(SCENARIO, large, **SDXL) == complaints(SCENARIO, small, **SD15) == ""
    assert "guidance_scale is 12" in complaints(SCENARIO, strong, **DEV)
    assert complaints(SCENARIO, strong, **SD15) == ""


def test_a_negative_prompt_that_would_be_ignored_is_refused() -> None:
    foggy = replace(GOOD, negative_prompt="fog")
    assert sent(foggy, **SD15)["negativePrompt"] == "fog"
    assert "set negativePromptStrength above 0" in complaints(SCENARIO, foggy, **DEV)
    assert sent(foggy, negativePromptStrength=2.0, **DEV)["negativePromptStrength"] == 2.0
    assert SCENARIO.notes(foggy, SCENARIO.options_type(negativePromptStrength=2.0))
    assert "guidance below 1" in complaints(SCENARIO, replace(foggy, guidance_scale=0.5), **SD15)
    assert "only Flux dev" in complaints(SCENARIO, negativePromptStrength=1.0, **SD15)


def test_there_is_no_initial_image_mask_or_clip_skip() -> None:
    text = complaints(SCENARIO, replace(GOOD, init_image=PICTURE, mask=MASK, clip_skip=1))
    assert "cannot start from an image" in text
    assert "does not support inpainting" in text
    assert "does not support clip_skip" in text


def test_flux_lora_fields_are_refused_for_other_families() -> None:
    for name in ("baseModelId", "modelEpoch"):
        assert "only for Flux LoRA models" in complaints(SCENARIO, **SD15, **{name: "x"})


def carriers(request: Any = GOOD, **options: Any) -> list[str]:
    return [slot.carrier.name for slot in SCENARIO.image_slots(request, SCENARIO.options_type(**options))]


def test_pictures_travel_inside_the_request_until_they_may_be_too_large() -> None:
    referring = replace(GOOD, references=(STYLE, STYLE))
    assert carriers(referring) == ["DATA_URL", "DATA_URL", "DATA_URL"]
    large = replace(GOOD, references=(replace(STYLE, image=torch.zeros(1, 2048, 2048, 3)),))
    assert carriers(large) == ["DATA_URL", "UPLOAD"]
    assert carriers(replace(large, width=2048, height=2048)) == ["UPLOAD", "UPLOAD"]
    assert carriers(referring, image_transfer="upload") == ["UPLOAD"] * 3
    assert carriers(large, image_transfer="inline") == ["DATA_URL", "DATA_URL"]


def test_inline_pictures_share_what_one_request_may_hold() -> None:
    slots = SCENARIO.image_slots(replace(GOOD, references=(STYLE, STYLE)), SCENARIO.options_type())
    assert sum(slot.max_bytes for slot in slots) * 4 / 3 <= 8_000_000
    (slot,) = SCENARIO.image_slots(GOOD, SCENARIO.options_type(image_transfer="upload"))
    assert slot.max_bytes < 6_000_000


@pytest.mark.parametrize("field", ["image", "imageId", "controlImage", "controlImageId"])
def test_the_control_picture_stands_in_the_chosen_field(field: str) -> None:
    found = sent(control_field=field)
    assert {"image", "imageId", "controlImage", "controlImageId"} & found.keys() == {field}


def test_an_uploaded_control_picture_is_named_by_its_asset() -> None:
    assert sent(image_transfer="upload")["image"] == "asset_1"
    large = replace(GOOD, width=2048, height=2048)
    assert sent(large, control_field="controlImage", image_transfer="inline")["controlImage"].startswith("data:")
    assert "Set control_field to controlImageId" in complaints(
        SCENARIO, control_field="controlImage", image_transfer="upload"
    )
    assert "is uploaded" in complaints(SCENARIO, imageParentId="asset_p", image_transfer="upload")


BREAKING = [
    {"width": 100},
    {"height": 4096},
    {"batch_size": 129},
    {"guidance_scale": 20.5},
    {"steps": 151},
    {"prompt": ""},
    {"controls": ()},
    {"controls": (replace(CANNY, strength=1.5),)},
    {"controls": (replace(CANNY, strength=-0.5),)},
    {"controls": (CANNY, replace(DEPTH, image=OTHER))},
    {"references": (replace(STYLE, scale=1.1),)},
    {"references": (replace(STYLE, mask=MASK),)},
    {"loras": (Lora(remote_id="model_a", strength=2.5),)},
    {"loras": (Lora(name="here.safetensors"),)},
    {"scheduler": SchedulerChoice(SchedulerName.KARRAS_VE)},
    {"scheduler": SchedulerChoice(use_karras_sigmas=True)},
    {"vae": "x"},
    {"upscale": True},
    {"seed": -1},
]


@pytest.mark.parametrize("options", [SD15, DEV], ids=["sd15", "flux"])
@pytest.mark.parametrize("change", BREAKING, ids=str)
def test_what_the_contract_forbids_has_problems(change: dict[str, Any], options: dict[str, str]) -> None:
    assert complaints(SCENARIO, replace(GOOD, **change), **options)


def accepts(request: Any, options: Any) -> bool:
    call = wire_call(SCENARIO, request, options, secret(api_key="key", api_secret="secret"))
    if call is None:
        return False
    contract.GenerateRequest.model_validate(call.body)
    contract.GenerateQuery.model_validate(call.query)
    return True


WILD_TEXTS = {
    "modelId": ("flux.1-schnell", "model_abc", "model_sdxl", ""),
    "modality": ("sketch", "landscape", "canny:0.5,depth", "canny:2"),
    "baseModelId": ("flux.1-dev",),
    "modelEpoch": ("000001",),
    "conceptEpochs": ("000001", "1,2,3"),
    "imageParentId": ("asset_p",),
    "projectId": ("proj",),
}


@pytest.mark.slow
@given(
    options=wild_options(SCENARIO, WILD_TEXTS),
    request=wild_requests((GOOD, REFERRING), ((512, 512), (64, 128), (1024, 64), (500, 512), (2048, 512))),
)
@QUICK
def test_any_request_has_problems_or_a_body_that_the_contract_accepts(options: Any, request: Any) -> None:
    known = {"flux.1-dev": ("auto", "flux-dev"), "flux.1-schnell": ("auto", "flux-schnell")}
    assume(options.model_family in known.get(options.modelId, ("auto", "sd15", "sdxl")))
    accepts(request, options)


tidy_requests = st.builds(
    replace,
    st.just(GOOD),
    width=any_of(512, 1024),
    height=any_of(512, 776),
    steps=st.integers(1, 150),
    guidance_scale=st.floats(1, 10),
    seed=st.integers(0, 2**64 - 1),
    batch_size=st.integers(1, 128),
    controls=st.tuples(
        st.lists(any_of(Modality.CANNY, Modality.DEPTH, Modality.POSE), min_size=1, max_size=3, unique=True),
        st.floats(0, 1, exclude_min=True),
    ).map(lambda c: tuple(ControlUnit(m, PICTURE, strength=c[1]) for m in c[0])),
    references=st.lists(st.builds(ImageReference, st.just(PICTURE), st.floats(0, 1)), max_size=3).map(tuple),
    loras=st.lists(st.builds(Lora, remote_id=any_of("model_a"), strength=st.floats(0, 2)), max_size=3).map(tuple),
)


@pytest.mark.slow
@given(request=tidy_requests, options=any_of(SD15, SDXL, DEV, {"modelId": "model_abc"}))
@QUICK
def test_any_request_within_the_documented_ranges_is_sent(request: Any, options: Any) -> None:
    if options is DEV:
        request = replace(request, controls=request.controls[:1])
    assert complaints(SCENARIO, request, **options) == ""
    assert accepts(request, SCENARIO.options_type(**options))


JOB = {
    "jobId": "job_1",
    "jobType": "flux",
    "status": "queued",
    "progress": 0,
    "metadata": {"input": {"image": "data:..."}, "assetIds": []},
    "billing": {"cuCost": 0, "cuDiscount": 0},
}


def test_the_generate_answer_is_read() -> None:
    answer = {"job": JOB, "creativeUnitsCost": 10, "creativeUnitsDiscount": 0, "costDetails": {"inference-images": 10}}
    state = SCENARIO.read_submit(said(answer))
    assert (state.phase, state.job_id, state.cost, state.progress) == (Phase.QUEUED, "job_1", 10.0, 0.0)
    assert "input" not in str(state.metadata)
    assert SCENARIO.read_submit(said({"job": {"id": "job_2", "status": "queued"}}, 201)).job_id == "job_2"


@pytest.mark.parametrize("extra", [{}, {"job": {}}])
def test_http_269_is_a_price_without_a_job(extra: dict[str, Any]) -> None:
    answer = {"creativeUnitsCost": 10.75, "creativeUnitsDiscount": 0, "costDetails": {"quality-gate": 1.75}, **extra}
    state = SCENARIO.read_estimate(said(answer, 269))
    assert (state.cost, state.job_id, state.outputs) == (10.75, "", ())
    assert state.metadata["costDetails"] == {"quality-gate": 1.75}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("pending", Phase.QUEUED),
        ("queued", Phase.QUEUED),
        ("warming-up", Phase.RUNNING),
        ("in-progress", Phase.RUNNING),
        ("finalizing", Phase.RUNNING),
        ("canceled", Phase.CANCELED),
        ("cancelled", Phase.CANCELED),
        ("failure", Phase.FAILED),
        ("failed", Phase.FAILED),
        ("brand-new-status", Phase.RUNNING),
    ],
)
def test_every_job_status_is_read_and_an_unknown_one_keeps_running(status: str, phase: Phase) -> None:
    assert SCENARIO.read_poll(said({"job": {**JOB, "status": status}})).phase is phase


def test_a_finished_job_names_assets_that_are_located_one_by_one() -> None:
    job = {**JOB, "status": "success", "progress": 1, "metadata": {"assetIds": ["asset_a", "asset_b"]}}
    state = SCENARIO.read_poll(said({"job": {**job, "billing": {"cuCost": 9}}}))
    assert (state.phase, state.outputs, state.cost) == (Phase.DONE, ("asset_a", "asset_b"), 9.0)
    call = SCENARIO.locate("asset_a")
    assert call is not None
    assert (call.method, call.path, call.query) == ("GET", "/assets/asset_a", {"originalAssets": "true"})
    link = "https://cdn.cloud.scenario.com/a.png?Policy=x&Signature=y&Key-Pair-Id=z"
    assert SCENARIO.read_location(said({"asset": {"id": "asset_a", "url": link}})) == link
    assert SCENARIO.locate(link) is None
    with pytest.raises(ServiceError, match="not found"):
        SCENARIO.read_location(said({"reason": "Asset not found"}, 404))


def test_a_finished_job_without_assets_has_failed() -> None:
    state = SCENARIO.read_poll(said({"job": {**JOB, "status": "success"}}))
    assert state.phase is Phase.FAILED and "no image" in state.message


def test_a_failed_job_tells_error_and_hint() -> None:
    job = {**JOB, "status": "failure", "metadata": {"error": "NSFW detected", "hint": "Change the prompt."}}
    assert SCENARIO.read_poll(said({"job": job})).message == "NSFW detected Change the prompt."
    for name in ("error", "errorMessage", "failureReason", "reason"):
        assert SCENARIO.read_poll(said({"job": {"jobId": "j", "status": "failure", name: "why"}})).message == "why"


@pytest.mark.parametrize(
    ("status", "answer", "text"),
    [
        (400, {"reason": "Input lorasScale must be at most 2"}, "Input lorasScale must be at most 2."),
        (404, {"reason": "Model model_x not found"}, "may no longer offer it"),
        (403, {"message": "API Keys cannot access protected resources"}, "protected resources."),
        (401, {"message": "Unauthorized"}, "controlstack.credentials"),
        (402, {"reason": "plan"}, "Add credits"),
        (400, {"error": "x", "detail": "y", "hint": "z"}, "x y z."),
        (403, None, "HTTP status was 403"),
    ],
)
def test_every_refusal_is_told_in_the_service_s_words(status: int, answer: Any, text: str) -> None:
    with pytest.raises(ServiceError) as raised:
        SCENARIO.read_submit(said(answer, status))
    assert text in str(raised.value)


def test_a_cooldown_says_how_long_to_wait() -> None:
    with pytest.raises(RateLimited) as raised:
        SCENARIO.read_submit(said({"reason": "Too many requests", "remainingSeconds": 12}, 429))
    assert raised.value.wait == 12


@pytest.mark.parametrize(("status", "answer"), [(502, None), (500, {"reason": "oops"}), (200, {"odd": 1})])
def test_an_answer_without_a_job_may_have_been_charged(status: int, answer: Any) -> None:
    with pytest.raises(OutcomeUnknown, match="charged"):
        SCENARIO.read_submit(said(answer, status, "<html>Bad Gateway</html>"))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502])
def test_a_busy_server_does_not_end_a_job(status: int) -> None:
    assert not SCENARIO.read_poll(said({"reason": "later"}, status)).phase.final


def test_a_vanished_job_is_an_error() -> None:
    with pytest.raises(ServiceError, match="Job not found"):
        SCENARIO.read_poll(said({"reason": "Job not found"}, 404))


def test_key_and_secret_go_into_the_basic_header_only() -> None:
    call = SCENARIO.authorize(SCENARIO.poll("job_1"), secret(api_key="key", api_secret="secret"))
    assert (call.method, call.path, call.body) == ("GET", "/jobs/job_1", None)
    assert call.headers == {"Authorization": "Basic " + base64.b64encode(b"key:secret").decode()}
    assert "Basic" not in repr(call)


def test_cancelling_and_uploading_follow_the_contract() -> None:
    call = SCENARIO.cancel("job_1")
    assert call.path == "/jobs/job_1/action"
    contract.ActionRequest.model_validate(call.body)
    call = SCENARIO.upload(b"\x89PNG", "image/png", "control.png")
    assert call.path == "/assets"
    contract.AssetRequest.model_validate(call.body)
    assert SCENARIO.read_upload(said({"asset": {"id": "asset_9", "url": "https://x"}})) == "asset_9"
    with pytest.raises(ServiceError, match="too big"):
        SCENARIO.read_upload(said({"reason": "too big"}, 413))


def test_an_unknown_family_is_noted() -> None:
    assert "model_family" in SCENARIO.notes(GOOD, SCENARIO.options_type(modelId="model_abc"))[0]
    assert SCENARIO.notes(GOOD, SCENARIO.options_type()) == []
    assert {slot.carrier for slot in SCENARIO.image_slots(GOOD, SCENARIO.options_type())} == {Carrier.DATA_URL}
