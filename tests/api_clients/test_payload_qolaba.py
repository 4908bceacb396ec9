"""Qolaba's two pages: every documented field, each app's own limits, and the reading of every documented answer."""

# Long lists read best as text.
# ruff: noqa: SIM905

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from controlstack.api_clients.http.messages import Carrier
from controlstack.api_clients.services.endpoint import Phase
from controlstack.api_clients.services.qolaba.endpoint import QolabaControlNet, QolabaImageToImage
from controlstack.core.errors import OutcomeUnknown, RateLimited, ServiceError
from controlstack.core.modality import Modality
from controlstack.core.request import Detect, ImageReference, ReferenceKind
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
from controlstack.tools.fake_services.contracts import qolaba as contract
from hypothesis import given
from hypothesis import strategies as st

CONTROLNET, IMAGE = QolabaControlNet(), QolabaImageToImage()
BOTH = pytest.mark.parametrize("endpoint", [CONTROLNET, IMAGE], ids=lambda endpoint: endpoint.target)
MODELS = {CONTROLNET.target: contract.ControlNetRequest, IMAGE.target: contract.ImageToImageRequest}

DEPTH = replace(GOOD, controls=(replace(CANNY, modality=Modality.DEPTH),))
POSE = replace(GOOD, controls=(replace(CANNY, modality=Modality.OPENPOSE),))
FACE = replace(
    GOOD, controls=(), references=(ImageReference(PICTURE, kind=ReferenceKind.FACE),), width=1024, height=1024
)
LOOK = replace(FACE, references=(ImageReference(PICTURE, scale=0.6),))
CHANGED = replace(GOOD, controls=(), init_image=OTHER, denoise=0.3)
SQUARE = replace(CHANGED, width=1024, height=1024)
RETIRED = ("Canny ControlNet (retired)", "Depth ControlNet (retired)", "Pose ControlNet (retired)")

# The ControlNet page, then Image to Image; steps are on the first only, but act for both (docs/services/qolaba.md 2).
CONTROLNET_FIELDS = (
    "app_id image prompt guidance_scale batch strength negative_prompt num_inference_steps celery inference_type"
).split()
IMAGE_FIELDS = (
    "app_id image prompt guidance_scale batch strength height width negative_prompt celery inference_type"
).split()


def test_every_documented_field_of_the_controlnet_page_can_be_reached() -> None:
    foggy = replace(GOOD, negative_prompt="fog")
    assert set(body(CONTROLNET, foggy, app_id=RETIRED[0])) == set(CONTROLNET_FIELDS)


def test_every_documented_field_of_the_image_to_image_page_can_be_reached() -> None:
    foggy = replace(CHANGED, negative_prompt="fog")
    other = set(body(IMAGE, foggy, custom_app_id="ap-other"))
    assert other == set(IMAGE_FIELDS)
    assert other | set(body(IMAGE)) == {*IMAGE_FIELDS, "num_inference_steps"}


def test_the_five_fields_of_every_request_are_always_sent_and_the_job_is_queued() -> None:
    found = body(IMAGE)
    assert found == {
        "app_id": contract.CANNY,
        "image": "https://host.example/picture.png",
        "prompt": "a lighthouse",
        "batch": 1,
        "strength": 1.0,
        "celery": True,
        "num_inference_steps": 21,
    }
    assert body(IMAGE, celery=False)["celery"] is False


@pytest.mark.parametrize(
    ("endpoint", "request_", "app_id"),
    [
        (CONTROLNET, GOOD, contract.CANNY),
        (CONTROLNET, DEPTH, contract.DEPTH),
        (IMAGE, GOOD, contract.CANNY),
        (IMAGE, DEPTH, contract.DEPTH),
        (IMAGE, FACE, contract.PULID),
        (IMAGE, LOOK, contract.REDUX),
        (IMAGE, CHANGED, contract.FLUX_DEV),
    ],
)
def test_auto_takes_the_live_app_that_fits_what_is_connected(endpoint: Any, request_: Any, app_id: str) -> None:
    assert body(endpoint, request_)["app_id"] == app_id


def test_auto_never_takes_a_retired_app_and_says_so_for_pose() -> None:
    text = complaints(CONTROLNET, POSE)
    assert "no live app for openpose controls" in text
    assert "'Pose ControlNet (retired)'" in text


@pytest.mark.parametrize(
    ("name", "request_", "app_id", "successor"),
    [
        (RETIRED[0], GOOD, contract.RETIRED[0], "Use Flux Canny instead."),
        (RETIRED[1], DEPTH, contract.RETIRED[1], "Use Flux Depth instead."),
        (RETIRED[2], POSE, contract.RETIRED[2], "It has no successor."),
    ],
)
def test_a_retired_app_is_usable_and_names_its_successor(name: str, request_: Any, app_id: str, successor: str) -> None:
    assert body(CONTROLNET, request_, app_id=name)["app_id"] == app_id
    notes = CONTROLNET.notes(request_, CONTROLNET.options_type(app_id=name))
    assert "2025-04-15" in notes[0] and successor in notes[0]
    by_id = CONTROLNET.notes(request_, CONTROLNET.options_type(custom_app_id=app_id))
    assert successor in by_id[0]


def test_any_other_app_id_is_allowed() -> None:
    assert body(IMAGE, CHANGED, custom_app_id=" ap-NFDMz1Rn9 ")["app_id"] == "ap-NFDMz1Rn9"
    assert body(CONTROLNET, POSE, custom_app_id="ap-new")["app_id"] == "ap-new"


def test_an_id_of_the_other_page_is_known_by_its_own_limits() -> None:
    assert "Use Qolaba Image to Image" in complaints(CONTROLNET, SQUARE, custom_app_id=contract.REDUX)
    assert body(IMAGE, SQUARE, custom_app_id=contract.REDUX) == body(IMAGE, SQUARE, app_id="Flux Redux")
    assert body(IMAGE, POSE, custom_app_id=contract.RETIRED[2])["guidance_scale"] == 7.5


@pytest.mark.parametrize(
    ("app", "denoise", "strength"),
    [
        ("Flux Dev", 0.3, 0.3),
        ("Flux Dev", 1.0, 1.0),
        ("Flux Redux", 0.3, 0.7),
        ("Ideogram Remix", 0.0, 1.0),
        ("Ideogram Remix", 0.55, 0.45),
    ],
)
def test_denoise_means_the_same_though_strength_points_both_ways(app: str, denoise: float, strength: float) -> None:
    assert body(IMAGE, replace(SQUARE, denoise=denoise), app_id=app)["strength"] == strength


@pytest.mark.parametrize(("app", "denoise"), [("Flux Dev", 0.0), ("Flux Redux", 1.0), ("Ideogram Remix", 1.0)])
def test_a_denoise_that_would_send_strength_0_is_refused(app: str, denoise: float) -> None:
    assert f"denoise is {denoise:g}" in complaints(IMAGE, replace(SQUARE, denoise=denoise), app_id=app)


def test_the_direction_of_strength_can_be_turned() -> None:
    assert body(IMAGE, CHANGED, app_id="Flux Dev", strength_direction="higher is closer")["strength"] == 0.7
    assert body(IMAGE, SQUARE, app_id="Flux Redux", strength_direction="higher changes more")["strength"] == 0.3


def test_a_reference_s_scale_is_the_weight_of_redux() -> None:
    assert body(IMAGE, LOOK)["strength"] == 0.6


def test_the_strength_of_a_control_is_sent_where_it_acts_and_must_be_1_where_it_does_not() -> None:
    weak = replace(GOOD, controls=(replace(CANNY, strength=0.4),))
    assert body(CONTROLNET, weak, app_id=RETIRED[0])["strength"] == 0.4
    assert "strength is 0.4" in complaints(CONTROLNET, weak)


SIZED = {
    "Ideogram Remix": (contract.IDEOGRAM, SQUARE),
    "Flux Redux": (contract.REDUX, SQUARE),
    "Flux PuLID": (contract.PULID, FACE),
}


@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_exactly_those_of_the_app(name: str) -> None:
    app_id, request = SIZED[name]
    every = {(width, height) for sizes in contract.SIZES.values() for width, height in sizes} | {
        (512, 512),
        (676, 1600),
    }
    able = {
        size for size in every if not complaints(IMAGE, replace(request, width=size[0], height=size[1]), app_id=name)
    }
    assert able == contract.SIZES[app_id]


def test_a_wrong_size_names_the_nearest_one() -> None:
    text = complaints(IMAGE, replace(SQUARE, width=720, height=1264), app_id="Flux Redux")
    assert "size is 720x1264" in text
    assert "Set width to 720 and height to 1280." in text


def test_width_and_height_are_exchanged_for_redux_on_request_only() -> None:
    wide = replace(SQUARE, width=1280, height=720)
    assert (body(IMAGE, wide, app_id="Flux Redux")["width"], body(IMAGE, wide, app_id="Flux Redux")["height"]) == (
        1280,
        720,
    )
    assert body(IMAGE, wide, app_id="Flux Redux", swap_size=True)["width"] == 720
    assert body(IMAGE, wide, app_id="Ideogram Remix", swap_size=True)["width"] == 1280


def test_apps_that_take_the_picture_s_size_get_the_picture_in_the_size_of_the_request() -> None:
    (slot,) = IMAGE.image_slots(replace(CHANGED, width=640, height=320), IMAGE.options_type())
    assert slot.image is not None and slot.image.shape == (1, 320, 640, 3)
    assert slot.carrier is Carrier.URL
    assert "width is 2048" in complaints(IMAGE, replace(CHANGED, width=2048))


def test_an_address_replaces_the_picture() -> None:
    address = "https://me.example/photo.jpg"
    (slot,) = IMAGE.image_slots(GOOD, IMAGE.options_type(image_url=address))
    assert (slot.url, slot.image) == (address, None)
    assert body(IMAGE, image_url=address)["image"] == address
    assert "must be an address" in complaints(IMAGE, image_url="photo.jpg")


@pytest.mark.parametrize(("app", "strength"), [("auto", 0.3), ("Flux Redux", 0.7), ("Ideogram Remix", 0.7)])
def test_an_address_alone_is_an_initial_image_and_denoise_acts_on_it(app: str, strength: float) -> None:
    options: Any = {"image_url": "https://me.example/photo.jpg", "app_id": app}
    bare = replace(SQUARE, init_image=None)
    assert body(IMAGE, bare, **options) == body(IMAGE, SQUARE, **options)
    assert body(IMAGE, bare, **options)["strength"] == strength
    ignored = replace(bare, denoise=1.0)
    if app == "auto":
        assert "With denoise 1 the initial image is ignored." in IMAGE.notes(ignored, IMAGE.options_type(**options))
    else:
        assert "Change denoise by 0.01 or more" in complaints(IMAGE, ignored, **options)
        assert body(IMAGE, replace(bare, denoise=0.99), **options)["strength"] == 0.01
    assert "denoise is 0.3" in complaints(CONTROLNET, replace(GOOD, denoise=0.3), image_url=options["image_url"])


@pytest.mark.parametrize("app", ["Flux Dev", "Flux Redux"])
def test_a_negative_prompt_is_refused_where_it_is_ignored(app: str) -> None:
    foggy = replace(SQUARE, negative_prompt="fog")
    text = complaints(IMAGE, foggy, app_id=app)
    assert f"Qolaba {app} ignores negative prompts" in text
    assert "Flux PuLID or Ideogram Remix" in text
    assert body(IMAGE, foggy, app_id="Ideogram Remix")["negative_prompt"] == "fog"


def test_steps_are_sent_where_they_act() -> None:
    assert "num_inference_steps" not in body(IMAGE, CHANGED)
    assert body(IMAGE, LOOK)["num_inference_steps"] == 21
    assert "steps is 60" in complaints(IMAGE, replace(GOOD, steps=60))
    assert complaints(IMAGE, replace(CHANGED, steps=60)) == ""
    assert any("number of steps" in note for note in IMAGE.notes(CHANGED, IMAGE.options_type()))


def test_the_gpu_is_chosen_for_qolaba_s_own_models_only() -> None:
    assert body(CONTROLNET, app_id=RETIRED[0], inference_type="h100")["inference_type"] == "h100"
    assert "no choice of GPU" in complaints(CONTROLNET, inference_type="h100")


@pytest.mark.parametrize(
    ("endpoint", "request_", "options", "part"),
    [
        (IMAGE, replace(GOOD, controls=()), {}, "has no app for what is connected"),
        (IMAGE, replace(GOOD, init_image=PICTURE), {"app_id": "Flux Dev"}, "does not accept controls"),
        (IMAGE, CHANGED, {"app_id": "Flux PuLID"}, "needs a reference"),
        (IMAGE, replace(LOOK, init_image=PICTURE), {"app_id": "Flux Redux"}, "accepts one image"),
        (IMAGE, GOOD, {"app_id": "Flux Depth"}, "does not support control 1 (canny)"),
        (CONTROLNET, replace(GOOD, controls=()), {}, "needs a control whose strength is not 0"),
        (CONTROLNET, CHANGED, {}, "cannot start from an image"),
        (CONTROLNET, replace(GOOD, controls=(CANNY, CANNY)), {}, "at most 1"),
    ],
)
def test_exactly_one_picture_of_the_right_kind_is_taken(
    endpoint: Any, request_: Any, options: dict[str, str], part: str
) -> None:
    assert part in complaints(endpoint, request_, **options)


def test_who_detects_is_noted_because_the_service_always_does() -> None:
    detecting = replace(GOOD, controls=(replace(CANNY, detect=Detect.SERVICE),))
    options = CONTROLNET.options_type()
    assert complaints(CONTROLNET, detecting) == ""
    assert any("detect = service" in note for note in CONTROLNET.notes(GOOD, options))
    assert not any("detect = service" in note for note in CONTROLNET.notes(detecting, options))


def test_the_missing_seed_is_noted_and_never_refused() -> None:
    assert complaints(CONTROLNET, replace(GOOD, seed=2**63)) == ""
    assert any("no seed" in note for note in CONTROLNET.notes(GOOD, CONTROLNET.options_type()))


BREAKING = [
    {"batch_size": 9},
    {"prompt": ""},
    {"clip_skip": 1},
    {"upscale": True},
    {"vae": "x"},
    {"mask": MASK},
    {"scheduler": SchedulerChoice(SchedulerName.LCM)},
    {"controls": (replace(CANNY, end=0.5),)},
    {"controls": (replace(CANNY, strength=1.5),)},
    {"controls": (replace(CANNY, mask=MASK),)},
    {"controls": (replace(CANNY, modality=Modality.HED),)},
    {"references": (ImageReference(PICTURE),)},
    {"width": 128},
    {"denoise": 0.5},
]


@BOTH
@pytest.mark.parametrize("change", BREAKING, ids=str)
def test_what_the_contract_forbids_has_problems(endpoint: Any, change: dict[str, Any]) -> None:
    assert complaints(endpoint, replace(GOOD, **change))


def test_problems_are_not_told_twice() -> None:
    text = complaints(IMAGE, replace(GOOD, prompt="", batch_size=9))
    assert text.count("prompt is") == text.count("batch_size is") == 1


def accepts(endpoint: Any, request: Any, options: Any) -> bool:
    call = wire_call(endpoint, request, options, secret(api_key="key"))
    if call is None:
        return False
    assert not options.swap_size if hasattr(options, "swap_size") else True
    MODELS[endpoint.target].model_validate(call.body)
    return True


WILD_TEXTS = {"custom_app_id": ("ap-other", contract.REDUX), "image_url": ("https://me.example/1.png", "x")}


@pytest.mark.slow
@BOTH
@given(
    data=st.data(),
    request=wild_requests(
        (GOOD, DEPTH, FACE, LOOK, CHANGED, SQUARE), ((512, 512), (1024, 1024), (1280, 720), (64, 128), (2048, 512))
    ),
)
@QUICK
def test_any_request_has_problems_or_a_body_that_the_contract_accepts(endpoint: Any, data: Any, request: Any) -> None:
    options = data.draw(wild_options(endpoint, WILD_TEXTS))
    if hasattr(options, "swap_size"):
        options = replace(options, swap_size=False)
    accepts(endpoint, request, options)


@pytest.mark.slow
@given(
    base=any_of(
        (GOOD, "auto"), (DEPTH, "auto"), (FACE, "auto"), (LOOK, "auto"), (CHANGED, "auto"), (SQUARE, "Flux Redux")
    ),
    batch=st.integers(1, 8),
    steps=st.integers(1, 50),
    guidance=st.floats(0, 30),
    seed=st.integers(0, 2**64 - 1),
    denoise=st.floats(0.01, 0.99),
    scale=st.floats(0.01, 1),
)
@QUICK
def test_any_request_within_the_documented_ranges_is_sent(
    base: Any, denoise: float, scale: float, **drawn: Any
) -> None:
    request, app = base
    request = replace(
        request, batch_size=drawn["batch"], steps=drawn["steps"], guidance_scale=drawn["guidance"], seed=drawn["seed"]
    )
    if request.init_image is not None:
        request = replace(request, denoise=denoise)
    request = replace(request, references=tuple(replace(unit, scale=scale) for unit in request.references))
    assert complaints(IMAGE, request, app_id=app) == ""
    assert accepts(IMAGE, request, IMAGE.options_type(app_id=app))


LINK = "https://cdn.qolaba.app/a.webp"
DONE = {
    "time_required": {"startup_time": 1.5, "runtime": 8},
    "error": None,
    "error_data": None,
    "input": {"batch": 2, "prompt": "a lighthouse"},
    "output": {"result": [LINK, LINK], "Has_NSFW_Content": [False, False], "low_res_urls": ["https://thumb/1"]},
    "app_id": contract.CANNY,
    "task_id": "2c5e-1",
    "status": "SUCCESS",
}
PENDING = {"task_id": "2c5e-1", "input": {"batch": 2}, "status": "PENDING"}


def test_a_queued_job_is_read() -> None:
    state = CONTROLNET.read_submit(said(PENDING))
    assert (state.phase, state.job_id) == (Phase.QUEUED, "2c5e-1")


def test_a_finished_job_gives_its_pictures_and_never_the_thumbnails() -> None:
    for state in (CONTROLNET.read_submit(said(DONE)), CONTROLNET.read_poll(said(DONE))):
        assert (state.phase, state.outputs, state.message) == (Phase.DONE, (LINK, LINK), "")
        assert state.metadata["time_required"] == {"startup_time": 1.5, "runtime": 8}
    only = {**DONE, "output": {"low_res_urls": ["https://thumb/1"]}}
    assert CONTROLNET.read_poll(said(only)).phase is Phase.FAILED


@pytest.mark.parametrize("output", [{"result": [LINK]}, {"result": LINK}, [LINK], LINK, {"url": LINK}, [{"url": LINK}]])
@pytest.mark.parametrize("status", ["SUCCESS", "success"])
def test_the_output_is_read_in_every_shape(output: Any, status: str) -> None:
    assert CONTROLNET.read_poll(said({"output": output, "status": status, "task_id": "1"})).outputs == (LINK,)


def test_missing_pictures_are_told_and_none_at_all_is_a_failure_that_names_moderation() -> None:
    fewer = {**DONE, "output": {"result": [LINK]}}
    assert CONTROLNET.read_poll(said(fewer)).message.startswith("1 of 2 images came back")
    none = CONTROLNET.read_poll(said({**DONE, "output": {"result": []}}))
    assert none.phase is Phase.FAILED and "nudity or copyright" in none.message


FAILURES = [
    ("Image Generation Error", "Request cancelled due to detection of NSFW content."),
    ("Image URL Error", "Given image type is not supported. Please try with JPG or PNG."),
    ("Internal Error", "('ap-unknown',)"),
    ("Face Consistent Error", {"detail": "Unable to detect faces"}),
]


@pytest.mark.parametrize(("kind", "data"), FAILURES)
@pytest.mark.parametrize("status", [200, 500])
def test_a_failure_is_read_whatever_the_http_status(kind: str, data: Any, status: int) -> None:
    answer = {"status": "FAILED", "error": kind, "error_data": data, "output": {}, "time_required": {}, "task_id": "1"}
    state = CONTROLNET.read_poll(said(answer, status))
    assert state.phase is Phase.FAILED and state.message.startswith(kind)
    with pytest.raises(ServiceError, match=kind):
        CONTROLNET.read_submit(said(answer, status))


@pytest.mark.parametrize("word", ["FAILURE", "failed"])
def test_other_spellings_of_failure_are_read(word: str) -> None:
    assert CONTROLNET.read_poll(said({"status": word, "task_id": "1"})).phase is Phase.FAILED


def test_a_wrong_key_is_refused_and_does_not_end_a_job() -> None:
    denied = said({"error": "HTTP Exception", "error_data": "Not authenticated", "status": "FAILED"}, 401)
    for read in (CONTROLNET.read_submit, CONTROLNET.read_poll):
        with pytest.raises(ServiceError, match="python -m controlstack"):
            read(denied)
    with pytest.raises(ServiceError, match="Add credits"):
        CONTROLNET.read_poll(said({"error": "credits", "status": "FAILED"}, 402))
    with pytest.raises(ServiceError, match="Not authenticated"):
        CONTROLNET.read_submit(said({"detail": "Not authenticated"}, 403))


def test_pending_and_server_trouble_do_not_end_a_job() -> None:
    assert CONTROLNET.read_poll(said(PENDING)).phase is Phase.QUEUED
    for status in (429, 500, 502, 503):
        assert not CONTROLNET.read_poll(said(None, status, "<html>Bad Gateway</html>")).phase.final


@pytest.mark.parametrize(("status", "answer"), [(200, {"status": "PENDING"}), (502, None), (200, None), (504, {})])
def test_an_answer_without_a_task_may_have_been_charged(status: int, answer: Any) -> None:
    with pytest.raises(OutcomeUnknown, match="charged"):
        CONTROLNET.read_submit(said(answer, status, "<html>Gateway Timeout</html>"))


def test_a_rate_limit_is_told_apart() -> None:
    with pytest.raises(RateLimited):
        CONTROLNET.read_submit(said(None, 429))


def test_calls_follow_the_contract() -> None:
    call = IMAGE.submit({}, IMAGE.options_type())
    assert (call.method, call.path, call.paid) == ("POST", "/getImagetoImage", True)
    assert IMAGE.submit({}, IMAGE.options_type(route="/getImageToImage")).path == "/getImageToImage"
    call = IMAGE.authorize(IMAGE.poll("2c5e-1"), secret(api_key="key"))
    assert (call.method, call.path, call.headers) == ("POST", "/getImage", {"Authorization": "Bearer key"})
    contract.StatusRequest.model_validate(call.body)
    assert IMAGE.cancel("1") is None
    assert IMAGE.upload(b"", "image/png", "x") is None
