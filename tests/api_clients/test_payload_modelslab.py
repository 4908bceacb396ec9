"""ModelsLab's two endpoints: every documented field, what the mapping claims, every documented answer."""

# Long lists read best as text.
# ruff: noqa: SIM905

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from controlstack.api_clients.http.messages import Carrier
from controlstack.api_clients.services.endpoint import Phase
from controlstack.api_clients.services.modelslab.endpoint import ModelsLab, ModelsLabEnterprise
from controlstack.api_clients.services.modelslab.rules import body_images
from controlstack.api_clients.services.modelslab.tables import ModelsLabOptions
from controlstack.core.errors import OutcomeUnknown, RateLimited, ServiceError
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, Detect, ImageReference, Lora, ReferenceKind
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
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
from controlstack.tools.fake_services.contracts import modelslab as contract
from hypothesis import assume, given
from hypothesis import strategies as st

V5, ENTERPRISE = ModelsLab(), ModelsLabEnterprise()
BOTH = pytest.mark.parametrize("endpoint", [V5, ENTERPRISE], ids=lambda endpoint: endpoint.target)
MODELS = {"modelslab": contract.ControlNetRequest, "modelslab_enterprise": contract.EnterpriseControlNetRequest}

DEPTH = replace(CANNY, modality=Modality.DEPTH)
INPAINT = ControlUnit(Modality.INPAINT, PICTURE, mask=MASK)
STYLE = ImageReference(PICTURE, scale=0.6)
RICH = replace(
    GOOD,
    negative_prompt="fog",
    controls=(INPAINT,),
    references=(STYLE,),
    loras=(Lora(remote_id="more_details", strength=0.5), Lora(remote_id="animie")),
    scheduler=SchedulerChoice(SchedulerName.DPM_MULTISTEP, True, AlgorithmType.DPMSOLVER_PP),
    init_image=PICTURE,
    denoise=0.55,
    vae="my-vae",
)
INPAINTING = replace(GOOD, controls=(INPAINT,))
REFERRING = replace(GOOD, references=(STYLE,), controls=(CANNY, DEPTH))
TEXTS = {"webhook": "https://me.example/hook", "track_id": "12345"}

# docs/services/modelslab.md 2, in the order of the documents: the standard endpoint, then enterprise.
V5_FIELDS = (
    "key model_id controlnet_model controlnet_type auto_hint guess_mode prompt negative_prompt init_image "
    "control_image mask_image width height samples scheduler tomesd use_karras_sigmas algorithm_type vae "
    "lora_strength lora_model num_inference_steps safety_checker ip_adapter_id ip_adapter_scale ip_adapter_image "
    "enhance_prompt controlnet_conditioning_scale strength guidance_scale seed webhook track_id upscale clip_skip "
    "base64 temp"
).split()
ENTERPRISE_FIELDS = (
    "key model_id controlnet_model controlnet_type auto_hint guess_mode prompt negative_prompt init_image "
    "control_image mask_image width height samples scheduler tomesd use_karras_sigmas algorithm_type vae "
    "lora_strength lora_model num_inference_steps safety_checker enhance_prompt multi_lingual guidance_scale "
    "controlnet_conditioning_scale strength seed webhook track_id upscale clip_skip base64 temp"
).split()


def test_every_documented_field_of_the_standard_endpoint_can_be_reached() -> None:
    assert len(V5_FIELDS) == 37
    assert {"key", *body(V5, RICH, **TEXTS)} == set(V5_FIELDS)


def test_every_documented_field_of_the_enterprise_endpoint_can_be_reached() -> None:
    assert len(ENTERPRISE_FIELDS) == 35
    assert {"key", *body(ENTERPRISE, replace(RICH, references=()), **TEXTS)} == set(ENTERPRISE_FIELDS)


DISPUTED = (
    "auto_hint guess_mode safety_checker enhance_prompt strength guidance_scale controlnet_conditioning_scale "
    "num_inference_steps width height samples scheduler base64 temp"
).split()


@BOTH
def test_fields_whose_server_defaults_disagree_are_always_sent(endpoint: Any) -> None:
    assert set(DISPUTED) <= set(body(endpoint))


def test_the_defaults_of_switches_are_the_documented_ones() -> None:
    standard, enterprise = body(V5), body(ENTERPRISE)
    for field, value in {"tomesd": "yes", "use_karras_sigmas": "yes", "enhance_prompt": "yes", "temp": "no"}.items():
        assert standard[field] == enterprise[field] == value
    assert standard["safety_checker"] == "no"
    assert enterprise["safety_checker"] == "yes"
    assert enterprise["multi_lingual"] == "yes"
    assert "multi_lingual" not in standard


@BOTH
@pytest.mark.parametrize(
    "switch", ["guess_mode", "tomesd", "use_karras_sigmas", "enhance_prompt", "safety_checker", "temp"]
)
def test_switches_are_yes_and_no(endpoint: Any, switch: str) -> None:
    assert {body(endpoint, **{switch: value})[switch] for value in (True, False)} == {"yes", "no"}


def test_several_controls_become_comma_lists_with_one_type() -> None:
    found = body(V5, replace(GOOD, controls=(CANNY, DEPTH)))
    assert found["controlnet_model"] == "canny,depth"
    assert found["controlnet_type"] == "canny"


def test_two_strengths_are_refused_and_the_node_s_one_scale_is_the_way_out() -> None:
    mixed = replace(GOOD, controls=(CANNY, replace(DEPTH, strength=0.5)))
    text = complaints(V5, mixed)
    assert "strength is 1 for canny, 0.5 for depth. ModelsLab has one strength for all controls." in text
    assert "controlnet_conditioning_scale" in text
    assert body(V5, mixed, controlnet_conditioning_scale=0.7)["controlnet_conditioning_scale"] == 0.7


def test_two_pictures_are_refused_because_one_travels() -> None:
    assert "Connect the same image" in complaints(V5, replace(GOOD, controls=(CANNY, replace(DEPTH, image=OTHER))))


def test_auto_hint_follows_who_detects() -> None:
    for detect, hint in ((Detect.SERVICE, "yes"), (Detect.NONE, "no"), (Detect.LOCAL, "no")):
        assert body(V5, replace(GOOD, controls=(replace(CANNY, detect=detect),)))["auto_hint"] == hint


def test_a_mix_of_detected_and_ready_maps_is_refused() -> None:
    mixed = replace(GOOD, controls=(replace(CANNY, detect=Detect.SERVICE), DEPTH))
    assert "one switch (auto_hint) for all controls" in complaints(V5, mixed)


def test_a_control_of_strength_0_is_not_there() -> None:
    off = replace(DEPTH, strength=0.0, image=OTHER, detect=Detect.SERVICE)
    assert body(V5, replace(GOOD, controls=(off, CANNY))) == body(V5)
    assert "needs a control whose strength is not 0" in complaints(V5, replace(GOOD, controls=(off,)))


def test_strength_is_denoise_1_ignores_the_initial_image() -> None:
    assert body(V5)["strength"] == 1.0
    assert body(V5, replace(GOOD, init_image=PICTURE, denoise=0.3))["strength"] == 0.3


def test_the_control_picture_stands_in_init_image_as_in_the_documents_until_there_is_an_initial_image() -> None:
    assert set(IMAGES & body(V5).keys()) == {"init_image"}
    assert set(IMAGES & body(V5, control_field="control_image").keys()) == {"control_image"}
    assert set(IMAGES & body(V5, control_field="both").keys()) == {"init_image", "control_image"}
    assert set(IMAGES & body(V5, replace(GOOD, init_image=OTHER)).keys()) == {"init_image", "control_image"}


IMAGES = {"init_image", "control_image", "mask_image"}


def test_inpainting_takes_the_mask_of_its_control_or_of_the_request() -> None:
    for request in (
        replace(GOOD, controls=(INPAINT,)),
        replace(GOOD, controls=(replace(INPAINT, mask=None),), init_image=PICTURE, mask=MASK),
    ):
        found = body(V5, request)
        assert found["controlnet_model"] == "inpaint"
        assert found["mask_image"]
        assert found["init_image"]


def test_a_mask_without_inpaint_and_inpaint_without_a_mask_are_refused() -> None:
    assert "uses a mask only together with an inpaint control" in complaints(
        V5, replace(GOOD, init_image=PICTURE, mask=MASK)
    )
    assert "needs a mask for inpainting" in complaints(V5, replace(GOOD, controls=(replace(INPAINT, mask=None),)))
    assert "2 masks are connected" in complaints(V5, replace(GOOD, controls=(INPAINT,), init_image=PICTURE, mask=MASK))


def test_pictures_are_uploaded_or_travel_as_base64_as_the_flag_says() -> None:
    request = replace(RICH, init_image=None, denoise=1.0)
    uploaded = V5.image_slots(request, V5.options_type())
    inline = V5.image_slots(request, V5.options_type(base64=True))
    assert {slot.carrier for slot in uploaded} == {Carrier.UPLOAD}
    assert {slot.key: slot.carrier for slot in inline} == {
        "init_image": Carrier.BASE64,
        "mask_image": Carrier.BASE64,
        "ip_adapter_image": Carrier.UPLOAD,
    }
    assert all(0 < slot.max_bytes * 4 / 3 < 5_000_000 for slot in uploaded)


def test_pictures_are_brought_to_the_size_of_the_result() -> None:
    (slot,) = V5.image_slots(replace(GOOD, width=64, height=128), V5.options_type())
    assert slot.image is not None and slot.image.shape == (1, 128, 64, 3)


def test_an_address_replaces_the_connected_picture() -> None:
    address = "https://me.example/photo.png"
    assert body(V5, control_image_url=address)["init_image"] == address
    both = body(V5, replace(GOOD, init_image=OTHER), init_image_url=address)
    assert both["init_image"] == address != both["control_image"]
    assert body(V5, replace(GOOD, denoise=0.3), init_image_url=address)["strength"] == 0.3
    assert "base64 is on" in complaints(V5, control_image_url=address, base64=True)
    styled, look = replace(GOOD, references=(STYLE,)), "https://me.example/look.png"
    assert body(V5, styled, ip_adapter_image_url=look, base64=True)["ip_adapter_image"] == look
    assert "must be an address" in complaints(V5, control_image_url="C:\\photo.png")


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("realistic-vision-51", ReferenceKind.STYLE, "ip-adapter_sd15"),
        ("realistic-vision-51", ReferenceKind.FACE, "ip-adapter-plus-face_sd15"),
        ("boziorealvisxlv4", ReferenceKind.STYLE, "ip-adapter_sdxl"),
    ],
)
def test_the_ip_adapter_fits_the_model_and_the_kind(model: str, kind: ReferenceKind, expected: str) -> None:
    found = body(V5, replace(GOOD, references=(replace(STYLE, kind=kind),)), model_id=model)
    assert found["ip_adapter_id"] == expected
    assert found["ip_adapter_scale"] == 0.6


def test_references_are_refused_where_no_adapter_is_documented() -> None:
    request = replace(GOOD, references=(STYLE,))
    assert "ModelsLab Enterprise (SD 1.5) does not accept reference images" in complaints(ENTERPRISE, request)
    assert "ModelsLab (Flux) does not accept reference images" in complaints(V5, request, model_id="fluxdev")
    assert "set model_family" in complaints(V5, request, model_id="my-own-model")
    assert body(V5, request, model_id="my-own-model", model_family="sdxl")["ip_adapter_id"] == "ip-adapter_sdxl"
    face = replace(GOOD, references=(replace(STYLE, kind=ReferenceKind.FACE),))
    assert "kind is face" in complaints(V5, face, model_id="boziorealvisxlv4")
    many = replace(GOOD, references=(replace(STYLE, image=PICTURE.repeat(2, 1, 1, 1)),))
    assert "accepts one reference image" in complaints(V5, many)


def test_loras_become_comma_lists() -> None:
    found = body(V5, RICH)
    assert found["lora_model"] == "more_details,animie"
    assert found["lora_strength"] == "0.5,1"
    assert "remote_id" in complaints(V5, replace(GOOD, loras=(Lora(name="local.safetensors"),)))


@BOTH
@pytest.mark.parametrize("name", SchedulerName)
def test_all_eighteen_schedulers_go_by_their_name(endpoint: Any, name: SchedulerName) -> None:
    assert body(endpoint, replace(GOOD, scheduler=SchedulerChoice(name)))["scheduler"] == name.value


def test_the_algorithm_type_has_three_plus_signs_and_goes_with_its_scheduler_only() -> None:
    multistep = SchedulerChoice(SchedulerName.DPM_MULTISTEP)
    assert body(V5, replace(GOOD, scheduler=multistep))["algorithm_type"] == "none"
    chosen = replace(multistep, algorithm_type=AlgorithmType.DPMSOLVER_PP)
    assert body(V5, replace(GOOD, scheduler=chosen))["algorithm_type"] == "dpmsolver+++"
    assert "algorithm_type" not in body(V5)
    other = replace(multistep, algorithm_type=AlgorithmType.SDE_DPMSOLVER)
    assert "algorithm_type is sde-dpmsolver" in complaints(V5, replace(GOOD, scheduler=other))


def test_kinds_of_control_follow_the_family_s_list() -> None:
    def accepted(endpoint: Any, **options: Any) -> list[str]:
        units = {m: replace(CANNY, modality=m, mask=MASK if m is Modality.INPAINT else None) for m in Modality}
        return [m.value for m in Modality if not complaints(endpoint, replace(GOOD, controls=(units[m],)), **options)]

    assert sorted(accepted(V5, model_id="fluxdev")) == sorted(contract.FLUX_KINDS)
    stable = set(contract.KINDS) - {"gray", "low_quality"}
    assert set(accepted(V5)) == set(accepted(V5, model_id="boziorealvisxlv4")) == stable
    assert set(accepted(V5, model_id="my-own-model")) == set(contract.KINDS)
    assert set(accepted(ENTERPRISE, model_id="my-own-model")) == set(contract.ENTERPRISE_KINDS)


def test_a_mask_of_another_shape_covers_the_same_of_its_picture() -> None:
    wide = torch.rand(1, 64, 128, 3)
    ends = torch.tensor([1.0, 0, 0, 1]).repeat_interleave(2).expand(1, 8, 8)  # cropped off with the picture's ends
    control = replace(GOOD, controls=(replace(INPAINT, image=wide, mask=ends),), width=64, height=64)
    own = replace(GOOD, controls=(replace(INPAINT, mask=None),), init_image=wide, mask=ends, width=64, height=64)
    for request in (control, own):
        mask, _ = body_images(request, ModelsLabOptions())["mask_image"]
        assert mask is not None and mask.shape == (1, 64, 64, 3)
        assert (mask[:, :, 16:-16] == 0).all()


def test_flux_takes_one_control_and_its_plain_id_has_no_controlnet() -> None:
    assert "at most 1" in complaints(V5, replace(GOOD, controls=(CANNY, DEPTH)), model_id="fluxdev")
    assert "Set model_id to fluxdev." in complaints(V5, model_id="flux")


def test_other_controlnets_are_free_text_and_noted() -> None:
    assert body(V5, controlnet_model="ghibli", model_id="fluxdev")["controlnet_model"] == "ghibli"
    assert "'ghibli'" in V5.notes(GOOD, V5.options_type(controlnet_model="ghibli"))[0]
    assert "one id for each control" in complaints(V5, controlnet_model="ghibli,canny")


@pytest.mark.parametrize(
    ("endpoint", "model", "kind"), [(V5, "fluxdev", Modality.HED), (ENTERPRISE, "x", Modality.POSE)]
)
def test_a_net_of_one_s_own_takes_any_kind_of_map_as_the_remedy_says(endpoint: Any, model: str, kind: Modality) -> None:
    request = replace(GOOD, controls=(replace(CANNY, modality=kind),))
    assert "or set controlnet_model" in complaints(endpoint, request, model_id=model)
    assert body(endpoint, request, model_id=model, controlnet_model="ghibli")["controlnet_model"] == "ghibli"
    text = complaints(endpoint, request, model_id=model, controlnet_model=kind.value)
    assert f"controlnet_model contains '{kind.value}', which" in text


def test_seeds_are_32_bit_numbers_or_null() -> None:
    assert body(V5, replace(GOOD, seed=7))["seed"] == 7
    assert body(V5, replace(GOOD, seed=2**64 - 1))["seed"] == 2**32 - 1
    assert body(V5, random_seed=True)["seed"] is None
    assert any("lower 32 bits" in note for note in V5.notes(replace(GOOD, seed=2**40), V5.options_type()))


def test_clip_skip_counts_from_1_at_the_service() -> None:
    assert [body(V5, replace(GOOD, clip_skip=layers))["clip_skip"] for layers in (0, 1, 7)] == [1, 2, 8]
    assert "clip_skip is 8" in complaints(V5, replace(GOOD, clip_skip=8))


def test_steps_are_sent_as_requested_or_as_documented() -> None:
    assert body(V5, replace(GOOD, steps=25))["num_inference_steps"] == 25
    assert body(V5, replace(GOOD, steps=25), num_inference_steps="31")["num_inference_steps"] == 31
    assert any("25 steps" in note for note in V5.notes(replace(GOOD, steps=25), V5.options_type()))


def test_guess_mode_goes_without_a_prompt_and_nothing_else_does() -> None:
    silent = replace(GOOD, prompt="")
    assert "prompt" not in body(V5, silent, guess_mode=True)
    assert "switch guess_mode on" in complaints(V5, silent)


def test_windows_and_batches_of_maps_are_refused() -> None:
    assert "in every step" in complaints(V5, replace(GOOD, controls=(replace(CANNY, end=0.5),)))
    many = replace(CANNY, image=PICTURE.repeat(2, 1, 1, 1))
    assert "accepts one image for all results" in complaints(V5, replace(GOOD, controls=(many,), batch_size=2))


def test_the_track_id_is_a_number_on_the_standard_endpoint_only() -> None:
    assert "whole number" in complaints(V5, track_id="order_1")
    assert body(ENTERPRISE, track_id="order_1")["track_id"] == "order_1"


def test_the_paths_are_the_documented_ones_and_the_call_is_paid() -> None:
    for endpoint, path in ((V5, "/api/v5/controlnet"), (ENTERPRISE, "/api/v1/enterprise/controlnet")):
        call = endpoint.submit({}, endpoint.options_type())
        assert (call.method, call.path, call.paid) == ("POST", path, True)


BREAKING = [
    {"width": 100},
    {"height": 2048},
    {"batch_size": 5},
    {"guidance_scale": 0.5},
    {"guidance_scale": 21.0},
    {"steps": 0},
    {"steps": 51},
    {"prompt": " "},
    {"controls": ()},
    {"controls": (replace(CANNY, strength=0.05),)},
    {"controls": (replace(CANNY, mask=MASK),)},
    {"controls": (replace(CANNY, image=PICTURE * float("nan")),)},
    {"denoise": 0.5},
    {"init_image": PICTURE, "denoise": 1.5},
    {"loras": (Lora(remote_id="x", strength=1.5),)},
    {"clip_skip": -1},
]


@BOTH
@pytest.mark.parametrize("change", BREAKING, ids=str)
def test_what_the_contract_forbids_has_problems(endpoint: Any, change: dict[str, Any]) -> None:
    assert complaints(endpoint, replace(GOOD, **change))


@pytest.mark.parametrize(
    "options",
    [
        {"model_id": ""},
        {"controlnet_conditioning_scale": 0.05},
        {"controlnet_conditioning_scale": float("nan")},
        {"webhook": "http://plain.example"},
        {"num_inference_steps": "25"},
        {"guess_mode": "no"},
        {"ip_adapter_id": "ip-adapter_sd15"},
        {"ip_adapter_image_url": "https://a.example/b.png"},
        {"mask_image_url": "https://a.example/b.png"},
        {"api_path": "/api/v7"},
        {"controlnet_type": "canny,depth"},
    ],
    ids=str,
)
def test_options_that_cannot_be_sent_are_problems(options: dict[str, Any]) -> None:
    assert complaints(V5, **options)


def accepts(endpoint: Any, request: Any, options: Any) -> bool:
    call = wire_call(endpoint, request, options, secret(api_key="key-1"))
    if call is None:
        return False
    MODELS[endpoint.service].model_validate(call.body)
    return True


WILD_TEXTS = {
    "model_id": ("fluxdev", "boziorealvisxlv4", "my-model", "", "flux"),
    "controlnet_model": ("ghibli", "canny,ghibli", "inpaint"),
    "controlnet_type": ("face", "a,b"),
    "webhook": ("https://me.example/hook", "me"),
    "track_id": ("17", "order_1"),
    "init_image_url": ("https://me.example/1.png", "no address"),
    "control_image_url": ("https://me.example/1.png",),
    "mask_image_url": ("https://me.example/1.png",),
    "ip_adapter_image_url": ("https://me.example/1.png",),
}


@pytest.mark.slow
@BOTH
@given(
    data=st.data(),
    request=wild_requests(
        (GOOD, GOOD, INPAINTING, REFERRING), ((512, 512), (64, 128), (1024, 64), (500, 512), (2048, 512))
    ),
)
@QUICK
def test_any_request_has_problems_or_a_body_that_the_contract_accepts(endpoint: Any, data: Any, request: Any) -> None:
    options = data.draw(wild_options(endpoint, WILD_TEXTS))
    assume("flux" not in options.model_id or options.model_family in ("auto", "flux"))
    accepts(endpoint, request, options)


tidy_requests = st.builds(
    replace,
    st.just(GOOD),
    width=any_of(64, 512, 1024),
    height=any_of(64, 776),
    steps=st.integers(1, 50),
    guidance_scale=st.floats(1, 20),
    seed=st.integers(0, 2**64 - 1),
    batch_size=st.integers(1, 4),
    clip_skip=st.integers(0, 7),
    negative_prompt=any_of("", "fog"),
    controls=st.tuples(
        st.lists(any_of(*(m for m in Modality if m.value in contract.ENTERPRISE_KINDS and m.value != "inpaint"))),
        st.floats(0.1, 5),
        st.sampled_from(Detect),
    ).map(lambda c: tuple(ControlUnit(m, PICTURE, c[2], c[1]) for m in [Modality.CANNY, *c[0]])),
    loras=st.lists(st.builds(Lora, remote_id=any_of("a", "b-2"), strength=st.floats(0.1, 1)), max_size=3).map(tuple),
    init_image=st.just(PICTURE),
    denoise=st.floats(0, 1),
    upscale=st.booleans(),
)


@pytest.mark.slow
@BOTH
@given(request=tidy_requests, inline=st.booleans())
@QUICK
def test_any_request_within_the_documented_ranges_is_sent(endpoint: Any, request: Any, inline: bool) -> None:
    assert complaints(endpoint, request, base64=inline) == ""
    assert accepts(endpoint, request, endpoint.options_type(base64=inline))


LINK = "https://pub-3626.r2.dev/livewire-tmp/6e6Z25.png"
SUCCESS = {"status": "success", "id": 120539115, "output": [LINK], "meta": {"seed": 1814762427, "W": 512}}
PROCESSING = {
    "status": "processing",
    "tip": "Get 20x faster image generation using enterprise plan.",
    "tip_1": "Your image is processing in background",
    "eta": 1.25,
    "messege": "Try to fetch request after seconds estimated",
    "fetch_result": "https://modelslab.com/api/v6/images/fetch/120539115",
    "id": 120539115,
    "output": "",
    "future_links": [LINK],
    "meta": {"seed": 7},
}


def test_a_success_is_read_with_its_seed() -> None:
    state = V5.read_submit(said(SUCCESS))
    assert (state.phase, state.job_id, state.outputs) == (Phase.DONE, "120539115", (LINK,))
    assert state.metadata["meta"]["seed"] == 1814762427


def test_an_enterprise_success_keeps_the_generation_time() -> None:
    state = ENTERPRISE.read_submit(said({**SUCCESS, "generationTime": 3.615}))
    assert state.metadata["generationTime"] == 3.615


@pytest.mark.parametrize("empty", ["", []])
def test_a_queued_job_is_read_whatever_stands_for_no_output(empty: Any) -> None:
    state = V5.read_submit(said({**PROCESSING, "output": empty}))
    assert (state.phase, state.job_id, state.outputs, state.wait) == (Phase.RUNNING, "120539115", (), 1.25)
    assert state.metadata["meta"]["seed"] == 7


def test_advertisements_are_not_news_of_a_job() -> None:
    assert V5.read_submit(said(PROCESSING)).message == "Try to fetch request after seconds estimated"
    assert V5.read_poll(said({"status": "processing", "tip": "Get 20x faster"})).message == ""


@pytest.mark.parametrize(("eta", "wait"), [(0.25, 1.0), (416.9, 30.0), ("13.07", 13.07), (None, None)])
def test_the_estimate_is_kept_between_1_and_30_seconds(eta: Any, wait: Any) -> None:
    assert V5.read_submit(said({**PROCESSING, "eta": eta})).wait == wait


def test_the_id_may_be_text_and_the_one_in_fetch_result_counts_if_it_is_the_service_s_own() -> None:
    assert V5.read_submit(said({**PROCESSING, "id": "abc123-def456", "fetch_result": ""})).job_id == "abc123-def456"
    own = {**PROCESSING, "fetch_result": "https://modelslab.com/api/v6/images/fetch/99"}
    assert V5.read_submit(said(own)).job_id == "99"
    foreign = {**PROCESSING, "fetch_result": "https://evil.example/api/v6/images/fetch/99"}
    assert V5.read_submit(said(foreign)).job_id == "120539115"


def test_the_output_may_be_text_or_a_list_and_success_without_any_is_a_failure() -> None:
    assert V5.read_poll(said({**SUCCESS, "output": LINK})).outputs == (LINK,)
    assert V5.read_submit(said({**SUCCESS, "id": None})).phase is Phase.DONE
    failed = V5.read_poll(said({"status": "success", "id": 1, "output": []}))
    assert failed.phase is Phase.FAILED and "no image" in failed.message


@pytest.mark.parametrize(
    ("status", "answer", "text"),
    [
        (200, {"status": "error", "messege": "Error message"}, "Error message."),
        (200, {"status": "error", "message": "Human-readable"}, "Human-readable."),
        (200, {"status": "error", "error": "other spelling"}, "other spelling."),
        (200, {"status": "error", "message": "Invalid Api Key", "tip": "1. Make sure"}, "Invalid Api Key 1. Make sure"),
        (401, {"status": "error", "message": "Invalid API key"}, "controlstack.credentials"),
        (
            200,
            {"status": "error", "message": {"prompt": ["The prompt field is required."]}},
            "prompt: The prompt field is required.",
        ),
        (400, {"status": "error", "message": "prompt is required"}, "prompt is required."),
        (200, {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}, "Failed, Try Again."),
        (402, {"status": "error", "message": "Insufficient credits."}, "Add credits"),
        (200, {"status": "error", "message": "Your monthly limit exceeded, upgrade"}, "monthly limit"),
        (403, {"status": "error", "message": "This feature requires a premium subscription"}, "premium"),
        (500, {"status": "error", "message": "Internal server error. Please try again."}, "Internal server error."),
        (404, None, "HTTP status was 404"),
    ],
)
def test_every_refusal_is_told_in_the_service_s_words(status: int, answer: Any, text: str) -> None:
    with pytest.raises(ServiceError) as raised:
        V5.read_submit(said(answer, status))
    assert text in str(raised.value)
    assert not isinstance(raised.value, RateLimited)


@pytest.mark.parametrize(
    ("status", "answer", "wait"),
    [
        (429, {"status": "error", "message": "Rate limit exceeded. Maximum 5 queued requests.", "retry_after": 30}, 30),
        (200, {"status": "error", "message": "Rate limit exceeded", "tips": "wait for 30 seconds and try again"}, 30),
        (429, None, None),
        (429, {"status": "error", "message": "try again in 30 minutes"}, 1800),
    ],
)  # fmt: skip
def test_a_rate_limit_says_how_long_to_wait(status: int, answer: Any, wait: Any) -> None:
    with pytest.raises(RateLimited) as raised:
        V5.read_submit(said(answer, status))
    assert raised.value.wait == wait


@pytest.mark.parametrize(
    ("status", "answer"), [(502, None), (200, None), (200, {"status": "processing", "id": None}), (200, {"odd": 1})]
)
def test_an_answer_without_a_job_may_have_been_charged(status: int, answer: Any) -> None:
    with pytest.raises(OutcomeUnknown, match="charged"):
        V5.read_submit(said(answer, status, "<html><h1>Bad Gateway</h1></html>"))


def test_the_fetch_samples_are_read() -> None:
    waiting = V5.read_poll(said({"status": "processing", "messege": "try again later.", "output": "", "tip": "Get"}))
    assert waiting.phase is Phase.RUNNING
    failed = V5.read_poll(said({"status": "error", "messege": "Error message"}))
    assert (failed.phase, failed.message) == (Phase.FAILED, "Error message")
    assert V5.read_poll(said({"status": "failed", "message": "Failed"})).phase is Phase.FAILED


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_server_does_not_end_a_job(status: int) -> None:
    assert not V5.read_poll(said({"status": "error", "message": "later", "retry_after": 5}, status)).phase.final
    assert not V5.read_poll(said(None, status, "<html>Bad Gateway</html>")).phase.final


def test_a_wrong_key_does_not_end_a_job_but_asking_again_is_useless() -> None:
    with pytest.raises(ServiceError, match="Invalid API key"):
        V5.read_poll(said({"status": "error", "message": "Invalid API key"}, 401))


ABOUT_THE_ACCOUNT = [
    (200, "Invalid API Key"),
    (200, "Invalid Api Key"),
    (400, "API key required"),
    (200, "You have run out of credits"),
    (200, "Insufficient credits. Please add more credits to continue."),
    (200, "Your monthly limit exceeded, upgrade subscription now on https://stablediffusionapi.com/pricing"),
    (200, "This feature requires a premium subscription"),
]


@pytest.mark.parametrize(("status", "text"), ABOUT_THE_ACCOUNT)
@pytest.mark.parametrize("name", ["message", "messege", "error"])
def test_words_about_the_account_do_not_end_a_job_whatever_the_http_status(status: int, text: str, name: str) -> None:
    with pytest.raises(ServiceError, match="Check the key, its plan and its credits"):
        V5.read_poll(said({"status": "error", name: text}, status))


def test_an_advertisement_is_not_about_the_account() -> None:
    answer = {"status": "error", "message": "CUDA out of memory", "tip": "Get 20x faster with the enterprise plan"}
    assert V5.read_poll(said(answer)).phase is Phase.FAILED


def test_jobs_are_asked_for_by_id_with_the_key_in_the_body() -> None:
    call = V5.authorize(V5.poll("12/3"), secret(api_key="secret-key"))
    assert (call.method, call.path, call.body) == ("POST", "/api/v6/images/fetch/12%2F3", {"key": "secret-key"})
    contract.FetchRequest.model_validate(call.body)
    call = ENTERPRISE.authorize(ENTERPRISE.poll("77"), secret(api_key="secret-key"))
    assert call.path == "/api/v1/enterprise/fetch"
    contract.EnterpriseFetchRequest.model_validate(call.body)
    assert V5.cancel("1") is None
    assert not call.paid


def test_uploads_follow_the_contract_and_their_answers_are_read() -> None:
    call = V5.authorize(V5.upload(b"\x89PNG", "image/png", "x.png"), secret(api_key="k"))
    assert call.path == "/api/v6/base64_to_url"
    contract.UploadRequest.model_validate(call.body)
    assert V5.read_upload(said({"status": "success", "id": 1047, "output": [LINK]})) == LINK
    call = ENTERPRISE.authorize(ENTERPRISE.upload(b"\x89PNG", "image/png", "x.png"), secret(api_key="k"))
    assert call.path == "/api/v1/enterprise/upload_image"
    contract.EnterpriseUploadRequest.model_validate(call.body)
    assert ENTERPRISE.read_upload(said({"status": "success", "message": "image uploaded", "image_url": LINK})) == LINK
    with pytest.raises(ServiceError, match="too large"):
        V5.read_upload(said({"status": "error", "message": "too large"}))


def test_a_request_s_tensors_are_never_changed() -> None:
    before = PICTURE.clone()
    body(V5, RICH)
    assert torch.equal(before, PICTURE)
