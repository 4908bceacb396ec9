"""Requests for every endpoint, tidy and wild, and the body that an endpoint makes of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from controlstack.api_clients.credentials.redaction import Secret
from controlstack.api_clients.http.messages import Answer, Carrier
from controlstack.api_clients.services.endpoint import Endpoint
from controlstack.api_clients.services.options import declared
from controlstack.core.modality import Modality
from controlstack.core.request import (
    ControlUnit,
    Detect,
    GenerationRequest,
    ImageReference,
    Lora,
    ReferenceKind,
    Resize,
)
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from hypothesis import settings
from hypothesis import strategies as st

PICTURE = torch.linspace(0, 1, 8 * 8 * 3).reshape(1, 8, 8, 3)
OTHER = PICTURE.flip(1)
MASK = torch.ones(1, 8, 8)
CANNY = ControlUnit(Modality.CANNY, PICTURE)
GOOD = GenerationRequest(prompt="a lighthouse", controls=(CANNY,))

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)

STAND_INS = {
    Carrier.BASE64: "iVBORw0KGgo=",
    Carrier.DATA_URL: "data:image/png;base64,iVBORw0KGgo=",
    Carrier.URL: "https://host.example/picture.png",
}
UPLOADED = {"modelslab": "https://upload.example/1.png", "modelslab_enterprise": "https://own.example/1.png"}


def carried(endpoint: Endpoint[Any], request: GenerationRequest, options: Any) -> dict[str, str]:
    """What the carriers would make of the images."""
    uploaded = STAND_INS | {Carrier.UPLOAD: UPLOADED.get(endpoint.service, "asset_1")}
    return {slot.key: slot.url or uploaded[slot.carrier] for slot in endpoint.image_slots(request, options)}


def body(endpoint: Endpoint[Any], request: GenerationRequest = GOOD, **options: Any) -> dict[str, Any]:
    """The body for a request that must have no problems."""
    chosen = endpoint.options_type(**options)
    assert [str(problem) for problem in endpoint.check(request, chosen)] == []
    return endpoint.build_payload(request, chosen, carried(endpoint, request, chosen))


def complaints(endpoint: Endpoint[Any], request: GenerationRequest = GOOD, **options: Any) -> str:
    """All problems in one text."""
    return "\n".join(str(problem) for problem in endpoint.check(request, endpoint.options_type(**options)))


def wire_call(endpoint: Endpoint[Any], request: GenerationRequest, options: Any, secrets: dict[str, Secret]) -> Any:
    """The call as it goes over the wire, or None where problems keep it from being built."""
    if endpoint.check(request, options):
        return None
    payload = endpoint.build_payload(request, options, carried(endpoint, request, options))
    return endpoint.authorize(endpoint.submit(payload, options), secrets)


def secret(**values: str) -> dict[str, Secret]:
    """Values by field, as an endpoint gets them."""
    return {name: Secret(value) for name, value in values.items()}


def said(json: dict[str, Any] | None, status: int = 200, text: str = "") -> Answer:
    """What a service answers."""
    return Answer(status, json, text)


def any_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


wild_controls = st.builds(
    ControlUnit,
    modality=st.sampled_from(Modality),
    image=any_of(PICTURE, PICTURE, PICTURE, OTHER, PICTURE.repeat(2, 1, 1, 1)),
    detect=any_of(Detect.NONE, Detect.NONE, Detect.LOCAL, Detect.SERVICE),
    strength=any_of(1.0, 1.0, 1.0, 0.0, 0.3, 0.05, 1.5),
    start=any_of(0.0, 0.0, 0.0, 0.0, 0.2, 0.95),
    end=any_of(1.0, 1.0, 1.0, 1.0, 0.7, 0.05),
    resize=any_of(Resize.CROP, Resize.CROP, Resize.FIT, Resize.STRETCH),
    mask=any_of(None, None, None, MASK),
)
wild_references = st.builds(
    ImageReference,
    image=any_of(PICTURE, OTHER, PICTURE.repeat(3, 1, 1, 1)),
    scale=any_of(0.9, 1.0, 0.0, 0.25, 1.2),
    kind=st.sampled_from(ReferenceKind),
    end=any_of(1.0, 1.0, 1.0, 0.5),
)
wild_loras = st.builds(
    Lora, name=any_of("", "x"), remote_id=any_of("style-a", "style-b", "", "a,b"), strength=any_of(1.0, 0.5, 0.0, 1.5)
)
schedulers = st.builds(
    SchedulerChoice,
    name=st.none() | st.sampled_from(SchedulerName),
    use_karras_sigmas=st.booleans(),
    algorithm_type=st.none() | st.sampled_from(AlgorithmType),
)


def wild_requests(
    bases: tuple[GenerationRequest, ...], sizes: tuple[tuple[int, int], ...]
) -> st.SearchStrategy[GenerationRequest]:
    """Good requests with up to three fields changed to something that may be wrong, alone or together."""
    size = any_of(*sizes)
    changes = {
        "prompt": any_of("a lighthouse", ""),
        "negative_prompt": any_of("fog"),
        "steps": any_of(31, 40, 60, 200, 0),
        "guidance_scale": any_of(3.0, 0.5, 15.0, 25.0),
        "seed": any_of(7, 2**32 - 1, 2**32, 2**64 - 1),
        "batch_size": any_of(2, 3, 8, 12),
        "clip_skip": any_of(2, 9),
        "controls": st.lists(wild_controls, max_size=4).map(tuple),
        "references": st.lists(wild_references, max_size=2).map(tuple),
        "loras": st.lists(wild_loras, max_size=2).map(tuple),
        "scheduler": schedulers,
        "init_image": any_of(PICTURE),
        "denoise": any_of(0.4, 0.0),
        "mask": any_of(MASK),
        "vae": any_of("vae-x"),
        "upscale": any_of(True),
        "width": size.map(lambda pair: pair[0]),
        "height": size.map(lambda pair: pair[1]),
    }
    resized = st.builds(lambda base, pair: replace(base, width=pair[0], height=pair[1]), any_of(*bases), size)
    return _changed(any_of(*bases) | resized, changes)


def wild_options(endpoint: Endpoint[Any], texts: dict[str, tuple[str, ...]]) -> st.SearchStrategy[Any]:
    """The defaults with up to three changed; `texts` says what may stand in the free ones."""
    changes = {}
    for name, (default, limits) in declared(endpoint.options_type).items():
        if limits.choices:
            changes[name] = st.sampled_from(limits.choices)
        elif isinstance(default, bool):
            changes[name] = st.just(not default)
        elif isinstance(default, str):
            changes[name] = any_of(*texts.get(name, (default,)))
        else:
            changes[name] = any_of(limits.minimum, limits.maximum, 0.05, limits.maximum + 1)
    return _changed(st.just(endpoint.options_type()), changes)


def _changed(bases: st.SearchStrategy[Any], changes: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from(sorted(changes)), max_size=3, unique=True)
    drawn = names.flatmap(lambda chosen: st.fixed_dictionaries({name: changes[name] for name in chosen}))
    return st.builds(lambda base, values: replace(base, **values), bases, drawn)
