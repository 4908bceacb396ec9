"""ModelsLab's request bodies as its documents describe them, strictly (docs/services/modelslab.md 2, 4, 6).

Where the documents contradict themselves, docs/services/modelslab.md 2.3 decides: any 1 to 50 steps, a conditioning
scale of 0.1 to 5 (to 20 on enterprise), ControlNet ids beside the documented kinds, and a numeric string as track_id.
"""

# Long lists read best as text.
# ruff: noqa: SIM905

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

KINDS = (
    "canny depth hed mlsd normal openpose scribble segmentation inpaint softedge lineart shuffle tile face_detector "
    "qrcode blur pose gray low_quality"
).split()
ENTERPRISE_KINDS = [kind for kind in KINDS if kind not in ("blur", "pose", "gray", "low_quality")]
FLUX_KINDS = "canny tile depth blur pose gray low_quality".split()

YesNo = Literal["yes", "no"]
Id = Annotated[str, Field(min_length=1, pattern=r"^[^\s,]+$")]
IdList = Annotated[str, Field(pattern=r"^[^\s,]+(,[^\s,]+)*$")]
Address = Annotated[str, Field(pattern=r"^https?://\S+$")]
Side = Annotated[int, Field(ge=64, le=1024, multiple_of=8)]
Scheduler = Literal[
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DDIMInverseScheduler",
    "DEISMultistepScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "ScoreSdeVeScheduler",
    "LCMScheduler",
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ControlNetRequest(Body):
    """The fields of both endpoints, some of which are always sent (docs/services/modelslab.md 2, 2.4)."""

    key: Annotated[str, Field(min_length=1)]
    model_id: Id
    controlnet_model: IdList
    controlnet_type: Id
    auto_hint: YesNo
    guess_mode: YesNo
    prompt: Annotated[str, Field(min_length=1)] | None = None
    negative_prompt: str | None = None
    init_image: Annotated[str, Field(min_length=1)] | None = None
    control_image: Annotated[str, Field(min_length=1)] | None = None
    mask_image: Annotated[str, Field(min_length=1)] | None = None
    width: Side
    height: Side
    samples: Annotated[int, Field(ge=1, le=4)]
    scheduler: Scheduler
    tomesd: YesNo
    use_karras_sigmas: YesNo
    algorithm_type: Literal["dpmsolver+++", "none"] | None = None
    vae: Id | None = None
    lora_strength: str | None = None
    lora_model: IdList | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=50)]
    safety_checker: YesNo
    enhance_prompt: YesNo
    controlnet_conditioning_scale: Annotated[float, Field(ge=0.1, le=5)]
    strength: Annotated[float, Field(ge=0, le=1)]
    guidance_scale: Annotated[float, Field(ge=1, le=20)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None
    webhook: Annotated[str, Field(pattern=r"^https://\S+$")] | None = None
    track_id: str | None = None
    upscale: YesNo
    clip_skip: Annotated[int, Field(ge=1, le=8)]
    base64: YesNo
    temp: YesNo

    @model_validator(mode="after")
    def images_come_as_the_flag_says(self) -> _ControlNetRequest:
        images = [image for image in (self.init_image, self.control_image, self.mask_image) if image]
        if not (self.init_image or self.control_image):
            raise ValueError("there is no image to take the control from")
        for image in images:
            is_address = image.startswith(("http://", "https://"))
            if self.base64 == "no" and not is_address:
                raise ValueError("with base64 no, images are addresses")
            if self.base64 == "yes" and (is_address or not is_raw_base64(image)):
                raise ValueError("with base64 yes, images are raw base64 without a data: prefix")
        return self

    @model_validator(mode="after")
    def fields_fit_each_other(self) -> _ControlNetRequest:
        names = self.controlnet_model.split(",")
        if ("inpaint" in names) != bool(self.mask_image):
            raise ValueError("a mask goes with inpaint, and inpaint with a mask")
        if "flux" in self.model_id and len(names) > 1:
            raise ValueError("multi ControlNet does not apply to flux models")
        if "flux" in self.model_id and any(name in KINDS and name not in FLUX_KINDS for name in names):
            raise ValueError("this kind of control is not for flux models")
        if self.algorithm_type is not None and self.scheduler != "DPMSolverMultistepScheduler":
            raise ValueError("algorithm_type is used in DPMSolverMultistepScheduler")
        if self.prompt is None and self.guess_mode == "no":
            raise ValueError("The prompt field is required.")
        if (self.lora_model is None) != (self.lora_strength is None):
            raise ValueError("LoRAs come with their strengths")
        if self.lora_model is not None and self.lora_strength is not None:
            strengths = [float(part) for part in self.lora_strength.split(",")]
            if len(strengths) != len(self.lora_model.split(",")) or not all(0.1 <= s <= 1 for s in strengths):
                raise ValueError("one strength from 0.1 to 1 for each LoRA")
        return self


class ControlNetRequest(_ControlNetRequest):
    """POST /api/v5/controlnet (docs/services/modelslab.md 2)."""

    track_id: Annotated[str, Field(pattern=r"^\d+$")] | None = None
    ip_adapter_id: Literal["ip-adapter_sdxl", "ip-adapter_sd15", "ip-adapter-plus-face_sd15"] | None = None
    ip_adapter_scale: Annotated[float, Field(ge=0, le=1)] | None = None
    ip_adapter_image: Address | None = None

    @model_validator(mode="after")
    def an_adapter_is_whole(self) -> ControlNetRequest:
        parts = [self.ip_adapter_id, self.ip_adapter_scale, self.ip_adapter_image]
        if any(part is None for part in parts) and any(part is not None for part in parts):
            raise ValueError("an IP-Adapter needs id, scale and image")
        return self


class EnterpriseControlNetRequest(_ControlNetRequest):
    """POST /api/v1/enterprise/controlnet (docs/services/modelslab.md 2)."""

    controlnet_conditioning_scale: Annotated[float, Field(ge=0.1, le=20)]
    multi_lingual: YesNo

    @model_validator(mode="after")
    def kinds_are_those_of_the_page(self) -> EnterpriseControlNetRequest:
        if any(name in KINDS and name not in ENTERPRISE_KINDS for name in self.controlnet_model.split(",")):
            raise ValueError("this kind of control is not on the enterprise page")
        return self


class FetchRequest(Body):
    """POST /api/v6/images/fetch/{id}."""

    key: Annotated[str, Field(min_length=1)]


class EnterpriseFetchRequest(Body):
    """POST /api/v1/enterprise/fetch."""

    key: Annotated[str, Field(min_length=1)]
    request_id: Annotated[str, Field(min_length=1)]


class UploadRequest(Body):
    """POST /api/v6/base64_to_url: a data URL with its prefix, at most 5 MB."""

    key: Annotated[str, Field(min_length=1)]
    base64_string: Annotated[str, Field(pattern=r"^data:image/(png|jpeg);base64,", max_length=5_000_000)]


class EnterpriseUploadRequest(Body):
    """POST /api/v1/enterprise/upload_image: raw base64."""

    key: Annotated[str, Field(min_length=1)]
    base64_image: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9+/=]+$")]
    image_type: Literal["png", "jpeg", "jpg"]


def is_raw_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
