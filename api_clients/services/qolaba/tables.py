"""Qolaba's models ("apps"), what each accepts, and the endpoints' own fields.

The contract is docs/services/qolaba.md 2, 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ....core.capabilities import (
    Capabilities,
    ControlSupport,
    InitImageSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
)
from ....core.modality import Modality
from ....core.request import ReferenceKind
from ..options import option


class Source(StrEnum):
    """Which part of a request is the one image that an app accepts."""

    CONTROL = "a control"
    INIT_IMAGE = "an initial image"
    REFERENCE = "a reference"


class Strength(StrEnum):
    """The effect of a higher `strength`. The documentation is right for one app only (docs/services/qolaba.md 3)."""

    CLOSER = "higher is closer"
    FARTHER = "higher changes more"
    IGNORED = "ignored"


@dataclass(frozen=True)
class App:
    """One model of the service.

    `sources` are the images it accepts, `fields` the documented fields that it uses, `sizes` the only sizes of its
    results (empty: that of the image). With `swaps_size`, it was seen to exchange width and height. `successor` is the
    name of the app that replaces a retired one.
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
    name="Flux Canny",
    app_id="ap-mNqZx4rtyjvbcfghwklpde",
    sources=(Source.CONTROL,),
    strength=Strength.IGNORED,
    fields=frozenset({STEPS}),
    modalities=frozenset({Modality.CANNY}),
)
FLUX_DEPTH = App(
    name="Flux Depth",
    app_id="ap-gWfZx8rjvtyqopmnbcdehij",
    sources=(Source.CONTROL,),
    strength=Strength.IGNORED,
    fields=frozenset({STEPS}),
    modalities=frozenset({Modality.DEPTH}),
)
FLUX_PULID = App(
    name="Flux PuLID",
    app_id="ap-hJkLm8nqwertyuiopasdfg",
    sources=(Source.REFERENCE,),
    strength=Strength.IGNORED,
    fields=frozenset({NEGATIVE, *SIZE}),
    kinds=frozenset({ReferenceKind.FACE}),
    sizes=((1024, 1024), (800, 1000), (720, 1280), (1280, 720), (1600, 676)),
)
FLUX_DEV = App(
    name="Flux Dev",
    app_id="ap-fGhKl3mfkdlpqrshuwwabc",
    sources=(Source.INIT_IMAGE,),
    strength=Strength.FARTHER,
)
FLUX_REDUX = App(
    name="Flux Redux",
    app_id="ap-gFhLq9zvbnmopxkytswabc",
    sources=(Source.INIT_IMAGE, Source.REFERENCE),
    strength=Strength.CLOSER,
    fields=frozenset({STEPS, *SIZE}),
    kinds=frozenset({ReferenceKind.STYLE}),
    sizes=((720, 1280), (800, 1000), (1024, 1024), (1280, 720), (1600, 676)),
    swaps_size=True,
)
IDEOGRAM_REMIX = App(
    name="Ideogram Remix",
    app_id="ap-hTjXy7qplkzvnmwqrsdabc",
    sources=(Source.INIT_IMAGE,),
    strength=Strength.CLOSER,
    fields=frozenset({NEGATIVE, *SIZE}),
    sizes=((720, 1280), (960, 1280), (1024, 1024), (1280, 960), (1280, 720)),
)
# Removed from the service on 2025-04-15 (docs/services/qolaba.md 0.2).
CANNY_CONTROLNET = App(
    name="Canny ControlNet (retired)",
    app_id="ap-1us0FK21Ach6eiWxo22is8",
    sources=(Source.CONTROL,),
    strength=Strength.CLOSER,
    fields=_OWN_MODEL,
    modalities=frozenset({Modality.CANNY}),
    retired=True,
    successor=FLUX_CANNY.name,
)
DEPTH_CONTROLNET = App(
    name="Depth ControlNet (retired)",
    app_id="ap-WrXnJBXy23XpPh6IlH5tRX",
    sources=(Source.CONTROL,),
    strength=Strength.CLOSER,
    fields=_OWN_MODEL,
    modalities=frozenset({Modality.DEPTH}),
    retired=True,
    successor=FLUX_DEPTH.name,
)
POSE_CONTROLNET = App(
    name="Pose ControlNet (retired)",
    app_id="ap-a1b2c3d4e5f6g7h8i9j0kq",
    sources=(Source.CONTROL,),
    strength=Strength.CLOSER,
    fields=_OWN_MODEL,
    modalities=_POSES,
    retired=True,
)

# In the order in which `auto` tries them. It never chooses a retired one.
CONTROLNET_APPS = (FLUX_CANNY, FLUX_DEPTH, CANNY_CONTROLNET, DEPTH_CONTROLNET, POSE_CONTROLNET)
IMAGE_APPS = (FLUX_CANNY, FLUX_DEPTH, FLUX_PULID, FLUX_DEV, FLUX_REDUX, IDEOGRAM_REMIX)

KNOWN_APPS = tuple(dict.fromkeys(CONTROLNET_APPS + IMAGE_APPS))


def other_controlnet(app_id: str) -> App:
    """An unlisted app on the ControlNet endpoint: it uses every documented field (docs/services/qolaba.md 2.1).

    Which images it understands is not known and not sent, so every modality is accepted.
    """
    return App(
        name=f"app {app_id}",
        app_id=app_id,
        sources=(Source.CONTROL,),
        strength=Strength.CLOSER,
        fields=_OWN_MODEL,
        modalities=frozenset(Modality),
    )


def other_image_app(app_id: str) -> App:
    """An unlisted app on the image endpoint: it uses every documented field (docs/services/qolaba.md 2.2).

    Which images it understands is not known and not sent, so every modality and kind of reference is accepted.
    """
    return App(
        name=f"app {app_id}",
        app_id=app_id,
        sources=tuple(Source),
        strength=Strength.FARTHER,
        fields=frozenset({GUIDANCE, NEGATIVE, MACHINE, *SIZE}),
        modalities=frozenset(Modality),
        kinds=frozenset(ReferenceKind),
    )


# The range of width and height, and the size above which an image is reduced (docs/services/qolaba.md 2.2).
_SIDE = Range(256, 1536)


def table(app: App, target: str) -> Capabilities:
    """The capabilities of one app."""
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
        # qolaba_rules checks whether the app uses a negative prompt, because it can name an app that does.
        prompts=PromptSupport(required=True, negative=True),
        ranges=ranges,
        sizes=app.sizes,
        controls=ControlSupport(
            modalities=app.modalities,
            required=app.sources == (Source.CONTROL,),
            maximum=int(takes_control),
            strength=Range(1, 1) if app.strength is Strength.IGNORED else Range(0, 1),
            detects=takes_control,
        ),
        references=ReferenceSupport(kinds=app.kinds, maximum=int(Source.REFERENCE in app.sources), scale=Range(0, 1)),
        init_images=InitImageSupport(accepted=Source.INIT_IMAGE in app.sources),
    )


def union(apps: tuple[App, ...], target: str, sources: tuple[Source, ...]) -> Capabilities:
    """The capabilities of an endpoint whose app is chosen by the request: those of its apps together."""
    every = App(
        name=target,
        app_id="",
        sources=sources,
        strength=Strength.CLOSER,
        modalities=frozenset[Modality]().union(*(app.modalities for app in apps)),
        kinds=frozenset[ReferenceKind]().union(*(app.kinds for app in apps)),
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
    """The documented fields of both endpoints that a request does not carry, and options that say "Not sent"."""

    app_id: str = option(AUTO, "The model.", choices=(AUTO,))
    custom_app_id: str = option("", "Id (ap-...) of any other app, sent instead of app_id.")
    image_url: str = option(
        "",
        "Public address of the image; Qolaba accepts only addresses. Empty: upload the connected image to the "
        "image host of your settings.",
    )
    strength_direction: str = option(
        AUTO,
        "Not sent. The effect of a higher strength at the service. auto: as in the service's own program for each app, "
        "which contradicts its documentation. The meaning of denoise and control strength here does not change.",
        choices=(AUTO, Strength.CLOSER.value, Strength.FARTHER.value),
    )
    inference_type: str = option(
        MACHINES[0], "The GPU for Qolaba's own models. The Flux and Ideogram apps have no choice.", choices=MACHINES
    )
    celery: bool = option(
        True, "On: queue the job and poll for its results. Off: keep the connection open until the images are ready."
    )
    route: str = option(ROUTES[0], "Not sent. The path of the endpoint. Both spellings are documented.", choices=ROUTES)


@dataclass(frozen=True)
class QolabaControlNetOptions(QolabaOptions):
    """Fields of the ControlNet page (docs/services/qolaba.md 2.1)."""

    app_id: str = option(
        AUTO,
        "The model. auto: the live one for the connected control. The three documented ControlNets were retired on "
        "2025-04-15: Flux Canny and Flux Depth replace two of them, pose has no replacement.",
        choices=(AUTO, *(app.name for app in CONTROLNET_APPS)),
    )


@dataclass(frozen=True)
class QolabaImageToImageOptions(QolabaOptions):
    """Fields of the Image to Image page (docs/services/qolaba.md 2.2)."""

    app_id: str = option(
        AUTO,
        "The model. auto: the first that accepts what is connected: a canny or depth control, a face or style "
        "reference, or an initial image.",
        choices=(AUTO, *(app.name for app in IMAGE_APPS)),
    )
    swap_size: bool = option(
        False,
        "Not sent. Swap width and height for Flux Redux, whose own program also swaps them. Switch it on if your "
        "results have width and height swapped.",
    )
