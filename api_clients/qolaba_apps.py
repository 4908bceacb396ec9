"""Qolaba's models ("apps"), what each takes, and the endpoints' own fields.

The contract is docs/services/qolaba.md 2, 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ..core.capabilities import (
    Capabilities,
    ControlSupport,
    InitImageSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
)
from ..core.modality import Modality
from ..core.request import ReferenceKind
from .options import option


class Source(StrEnum):
    """Which part of a request is the one picture an app takes."""

    CONTROL = "a control"
    INIT_IMAGE = "an initial image"
    REFERENCE = "a reference"


class Strength(StrEnum):
    """What a higher `strength` does; the documentation is right for one app only (docs/services/qolaba.md 3)."""

    CLOSER = "higher is closer"
    FARTHER = "higher changes more"
    IGNORED = "ignored"


@dataclass(frozen=True)
class App:
    """One model: the pictures it takes, the documented fields that act for it, its sizes (empty: the picture's own).

    `successor` names the app to use in place of a retired one.
    """

    name: str
    app_id: str
    sources: tuple[Source, ...]
    strength: Strength
    fields: frozenset[str] = frozenset()
    modalities: frozenset[Modality] = frozenset()
    kinds: frozenset[ReferenceKind] = frozenset()
    sizes: tuple[tuple[int, int], ...] = ()
    swaps_size: bool = False
    retired: bool = False
    successor: str = ""


STEPS, GUIDANCE, NEGATIVE, MACHINE = "num_inference_steps", "guidance_scale", "negative_prompt", "inference_type"
SIZE = ("width", "height")
_POSES = frozenset({Modality.OPENPOSE, Modality.POSE})
_OWN_MODEL = frozenset({STEPS, GUIDANCE, NEGATIVE, MACHINE})

FLUX_CANNY = App(
    "Flux Canny",
    "ap-mNqZx4rtyjvbcfghwklpde",
    (Source.CONTROL,),
    Strength.IGNORED,
    frozenset({STEPS}),
    frozenset({Modality.CANNY}),
)
FLUX_DEPTH = App(
    "Flux Depth",
    "ap-gWfZx8rjvtyqopmnbcdehij",
    (Source.CONTROL,),
    Strength.IGNORED,
    frozenset({STEPS}),
    frozenset({Modality.DEPTH}),
)
FLUX_PULID = App(
    "Flux PuLID",
    "ap-hJkLm8nqwertyuiopasdfg",
    (Source.REFERENCE,),
    Strength.IGNORED,
    frozenset({NEGATIVE, *SIZE}),
    kinds=frozenset({ReferenceKind.FACE}),
    sizes=((1024, 1024), (800, 1000), (720, 1280), (1280, 720), (1600, 676)),
)
FLUX_DEV = App("Flux Dev", "ap-fGhKl3mfkdlpqrshuwwabc", (Source.INIT_IMAGE,), Strength.FARTHER)
FLUX_REDUX = App(
    "Flux Redux",
    "ap-gFhLq9zvbnmopxkytswabc",
    (Source.INIT_IMAGE, Source.REFERENCE),
    Strength.CLOSER,
    frozenset({STEPS, *SIZE}),
    kinds=frozenset({ReferenceKind.STYLE}),
    sizes=((720, 1280), (800, 1000), (1024, 1024), (1280, 720), (1600, 676)),
    swaps_size=True,
)
IDEOGRAM_REMIX = App(
    "Ideogram Remix",
    "ap-hTjXy7qplkzvnmwqrsdabc",
    (Source.INIT_IMAGE,),
    Strength.CLOSER,
    frozenset({NEGATIVE, *SIZE}),
    sizes=((720, 1280), (960, 1280), (1024, 1024), (1280, 960), (1280, 720)),
)
# Removed from the service on 2025-04-15 (docs/services/qolaba.md 0.2).
CANNY_CONTROLNET = App(
    "Canny ControlNet (retired)",
    "ap-1us0FK21Ach6eiWxo22is8",
    (Source.CONTROL,),
    Strength.CLOSER,
    _OWN_MODEL,
    frozenset({Modality.CANNY}),
    retired=True,
    successor=FLUX_CANNY.name,
)
DEPTH_CONTROLNET = App(
    "Depth ControlNet (retired)",
    "ap-WrXnJBXy23XpPh6IlH5tRX",
    (Source.CONTROL,),
    Strength.CLOSER,
    _OWN_MODEL,
    frozenset({Modality.DEPTH}),
    retired=True,
    successor=FLUX_DEPTH.name,
)
POSE_CONTROLNET = App(
    "Pose ControlNet (retired)",
    "ap-a1b2c3d4e5f6g7h8i9j0kq",
    (Source.CONTROL,),
    Strength.CLOSER,
    _OWN_MODEL,
    _POSES,
    retired=True,
)

# In the order in which `auto` tries them; it never takes a retired one.
CONTROLNET_APPS = (FLUX_CANNY, FLUX_DEPTH, CANNY_CONTROLNET, DEPTH_CONTROLNET, POSE_CONTROLNET)
IMAGE_APPS = (FLUX_CANNY, FLUX_DEPTH, FLUX_PULID, FLUX_DEV, FLUX_REDUX, IDEOGRAM_REMIX)

KNOWN_APPS = tuple(dict.fromkeys(CONTROLNET_APPS + IMAGE_APPS))


def other_controlnet(app_id: str) -> App:
    """An unlisted app on the ControlNet endpoint: each documented field acts (docs/services/qolaba.md 2.1)."""
    modalities = frozenset(Modality)
    return App(f"app {app_id}", app_id, (Source.CONTROL,), Strength.CLOSER, _OWN_MODEL, modalities)


def other_image_app(app_id: str) -> App:
    """An unlisted app on the image endpoint: each documented field acts (docs/services/qolaba.md 2.2)."""
    fields = frozenset({GUIDANCE, NEGATIVE, MACHINE, *SIZE})
    kinds, modalities = frozenset(ReferenceKind), frozenset(Modality)
    return App(f"app {app_id}", app_id, tuple(Source), Strength.FARTHER, fields, modalities, kinds)


# The range of width and height, and the size above which an image is reduced (docs/services/qolaba.md 2.2).
_SIDE = Range(256, 1536)


def table(app: App, target: str) -> Capabilities:
    """What one app can do."""
    ranges = {"batch_size": Range(1, 8), "denoise": Range(0, 1)}
    if not app.sizes:
        ranges |= {"width": _SIDE, "height": _SIDE}
    if STEPS in app.fields:
        ranges["steps"] = Range(1, 50)
    if GUIDANCE in app.fields:
        ranges["guidance_scale"] = Range(1, 30)
    takes_control = Source.CONTROL in app.sources
    return Capabilities(
        target=target,
        # Whether the app reads a negative prompt is checked with its other fields.
        prompts=PromptSupport(required=True, negative=True),
        ranges=ranges,
        sizes=app.sizes,
        controls=ControlSupport(
            modalities=app.modalities,
            minimum=int(app.sources == (Source.CONTROL,)),
            maximum=int(takes_control),
            strength=Range(1, 1) if app.strength is Strength.IGNORED else Range(0, 1),
            detects=takes_control,
        ),
        references=ReferenceSupport(kinds=app.kinds, maximum=int(Source.REFERENCE in app.sources), scale=Range(0, 1)),
        init_images=InitImageSupport(accepted=Source.INIT_IMAGE in app.sources),
    )


def union(apps: tuple[App, ...], target: str, sources: tuple[Source, ...]) -> Capabilities:
    """What a target can do whose app is chosen by the request."""
    every = App(
        target,
        "",
        sources,
        Strength.CLOSER,
        modalities=frozenset().union(*(app.modalities for app in apps)),
        kinds=frozenset().union(*(app.kinds for app in apps)),
    )
    largest = max((side for app in apps for size in app.sizes for side in size), default=0)
    capabilities = table(every, target)
    side = Range(_SIDE.minimum, max(_SIDE.maximum, largest))
    return replace(capabilities, ranges={**capabilities.ranges, "width": side, "height": side})


AUTO = "auto"
ROUTES = ("/getImagetoImage", "/getImageToImage")
MACHINES = ("a10g", "a100", "h100")


@dataclass(frozen=True)
class QolabaOptions:
    """The documented fields of both endpoints that a request does not carry; what is not a field says so."""

    app_id: str = option(AUTO, "The model.", choices=(AUTO,))
    custom_app_id: str = option("", "Not sent by this name. Id (ap-...) of any other app, used instead of app_id.")
    image_url: str = option(
        "",
        "Public address of the picture, which is all that Qolaba takes. Empty: the connected picture is put on the "
        "image host of your settings.",
    )
    strength_direction: str = option(
        AUTO,
        "Not sent. What more strength does at the service; auto knows it for each app from the service's own program, "
        "which contradicts its documents. Denoise and control strength always mean the same here.",
        choices=(AUTO, Strength.CLOSER.value, Strength.FARTHER.value),
    )
    inference_type: str = option(
        MACHINES[0], "The GPU to use, for Qolaba's own models; the Flux and Ideogram apps have none.", choices=MACHINES
    )
    celery: bool = option(
        True, "Queues the job and asks for it later. Off keeps the connection open until the pictures are ready."
    )
    route: str = option(ROUTES[0], "Not sent. The path of the endpoint: both spellings are documented.", choices=ROUTES)


@dataclass(frozen=True)
class QolabaControlNetOptions(QolabaOptions):
    """Fields of the ControlNet page (docs/services/qolaba.md 2.1)."""

    app_id: str = option(
        AUTO,
        "The model; auto takes the live one for the connected control. The three ControlNets of the documents were "
        "retired on 2025-04-15: Flux Canny and Flux Depth succeed two of them, pose has no successor.",
        choices=(AUTO, *(app.name for app in CONTROLNET_APPS)),
    )


@dataclass(frozen=True)
class QolabaImageToImageOptions(QolabaOptions):
    """Fields of the Image to Image page (docs/services/qolaba.md 2.2)."""

    app_id: str = option(
        AUTO,
        "The model; auto takes the first that fits what is connected: a canny or depth control, a face or style "
        "reference, or an initial image.",
        choices=(AUTO, *(app.name for app in IMAGE_APPS)),
    )
    swap_size: bool = option(
        False,
        "Not sent. Exchanges width and height for Flux Redux, whose program was seen to exchange them, too. Switch it "
        "on if your pictures come out turned.",
    )
