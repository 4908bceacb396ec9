"""Scenario's request to controlnet-ip-adapter as documented, strictly (docs/services/scenario.md 2-6)."""

# The services' names, some of them in camel case; long lists read best as text.
# ruff: noqa: N815, SIM905

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SD15_NAMES = "canny pose depth lines seg scribble lineart normal-map illusion".split()
SDXL_NAMES = "canny pose depth seg illusion scribble".split()
FLUX_NAMES = "canny tile depth blur pose gray low-quality".split()
PRESETS = "character landscape city interior".split()
NAMES = {*SD15_NAMES, *SDXL_NAMES, *FLUX_NAMES, "sketch"}

DataUrl = Annotated[str, Field(pattern=r"^data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$")]
AssetId = Annotated[str, Field(pattern=r"^asset_\w+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]
Text = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Concept(Body):
    modelId: Text
    scale: Annotated[float, Field(ge=0, le=2)]
    modelEpoch: Text | None = None


class GenerateRequest(Body):
    """POST /generate/controlnet-ip-adapter with the 33 fields of its body (docs/services/scenario.md 3)."""

    ipAdapterImageIds: Annotated[list[AssetId], Field(min_length=1)] | None = None
    controlEnd: Annotated[float, Field(ge=0.1, le=1)] | None = None
    modality: Text
    seed: Annotated[str, Field(pattern=r"^\d+$")] | None = None
    modelId: Text
    ipAdapterType: Literal["character", "style"] | None = None
    ipAdapterImage: DataUrl | None = None
    scheduler: (
        Literal[
            "DDIMScheduler",
            "DDPMScheduler",
            "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "HeunDiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "LCMScheduler",
            "LMSDiscreteScheduler",
            "PNDMScheduler",
            "TCDScheduler",
            "UniPCMultistepScheduler",
        ]
        | None
    ) = None
    disableModalityDetection: bool
    ipAdapterImages: Annotated[list[DataUrl], Field(min_length=1)] | None = None
    imageParentId: Text | None = None
    baseModelId: Text | None = None
    controlStart: Annotated[float, Field(ge=0, le=0.9)] | None = None
    height: Side
    imageHide: bool | None = None
    controlImageId: AssetId | None = None
    image: DataUrl | AssetId | None = None
    imageId: AssetId | None = None
    ipAdapterImageId: AssetId | None = None
    ipAdapterScale: Share | None = None
    modelEpoch: Text | None = None
    hideResults: bool | None = None
    ipAdapterScales: list[Share] | None = None
    negativePrompt: Text | None = None
    intermediateImages: bool | None = None
    concepts: Annotated[list[Concept], Field(min_length=1)] | None = None
    controlImage: DataUrl | None = None
    guidance: Annotated[float, Field(ge=0, le=20)]
    numInferenceSteps: Annotated[int, Field(ge=1, le=150)]
    numSamples: Annotated[int, Field(ge=1, le=128)]
    width: Side
    negativePromptStrength: Annotated[float, Field(ge=0, le=10)] | None = None
    prompt: Text

    @field_validator("modality")
    @classmethod
    def follows_the_grammar(cls, text: str) -> str:
        parts = [re.fullmatch(r"([a-z-]+)(?::(\d+(?:\.\d+)?))?", part) for part in text.split(",")]
        names = [part[1] for part in parts if part]
        if len(names) != len(parts) or not set(names) <= NAMES | set(PRESETS):
            raise ValueError("each part is name or name:weight")
        if any(part[2] and not 0 < float(part[2]) <= 1 for part in parts if part):
            raise ValueError("weights are in ]0, 1]")
        if len(names) > 3 or len(set(names)) < len(names) or (set(names) & set(PRESETS) and len(names) > 1):
            raise ValueError("up to three different modalities, or one preset")
        return text

    @model_validator(mode="after")
    def one_control_image(self) -> GenerateRequest:
        given = [field for field in (self.image, self.imageId, self.controlImage, self.controlImageId) if field]
        if len(given) != 1:
            raise ValueError("the control image stands in exactly one field")
        inline = given[0].startswith("data:")
        if not inline and (self.imageParentId or self.imageHide):
            raise ValueError("imageParentId and imageHide belong to an image provided as a data URL")
        return self

    @model_validator(mode="after")
    def references_are_consistent(self) -> GenerateRequest:
        given = [self.ipAdapterImages, self.ipAdapterImageIds, self.ipAdapterImage, self.ipAdapterImageId]
        if sum(field is not None for field in given) > 1:
            raise ValueError("references stand in exactly one field")
        many = self.ipAdapterImages or self.ipAdapterImageIds
        if len(many or []) != len(self.ipAdapterScales or []):
            raise ValueError("one scale for each reference")
        if (self.ipAdapterScale is not None) != bool(self.ipAdapterImage or self.ipAdapterImageId):
            raise ValueError("the singular scale goes with the singular image")
        return self

    @model_validator(mode="after")
    def family_rules_hold(self) -> GenerateRequest:
        if self.modelId.startswith("flux.1"):
            names = {part.split(":")[0] for part in self.modality.split(",")}
            if len(names) != 1 or not names <= {*FLUX_NAMES, "sketch"}:
                raise ValueError("flux takes one of its own modalities")
            if not self.disableModalityDetection:
                raise ValueError("detection is always disabled for flux")
            if self.negativePrompt and not self.negativePromptStrength:
                raise ValueError("must be > 0 if negativePrompt is provided")
        elif self.controlStart is not None or self.controlEnd is not None:
            raise ValueError("only available for Flux.1-dev based models")
        if self.modelId.startswith("flux.1-dev") and self.guidance > 10:
            raise ValueError("for Flux dev models guidance is within [0, 10]")
        if self.negativePrompt and self.guidance < 1:
            raise ValueError("the negative prompt is ignored when guidance < 1")
        return self


class GenerateQuery(Body):
    originalAssets: Literal["true", "false"] | None = None
    dryRun: Literal["true"] | None = None
    projectId: Text | None = None


class AssetRequest(Body):
    """POST /assets."""

    image: DataUrl
    name: Text


class ActionRequest(Body):
    """POST /jobs/{jobId}/action."""

    action: Literal["cancel"]
