"""Qolaba's requests as its two pages describe them, strictly (docs/services/qolaba.md 2, 4).

Where the pages are silent, docs/services/qolaba.md 2 decides: strength is above 0, and a field that does not act
for an app is not sent to it.
"""

# The service's own names.
# ruff: noqa: N815

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FLUX_DEV = "ap-fGhKl3mfkdlpqrshuwwabc"
IDEOGRAM = "ap-hTjXy7qplkzvnmwqrsdabc"
REDUX = "ap-gFhLq9zvbnmopxkytswabc"
CANNY = "ap-mNqZx4rtyjvbcfghwklpde"
DEPTH = "ap-gWfZx8rjvtyqopmnbcdehij"
PULID = "ap-hJkLm8nqwertyuiopasdfg"
RETIRED = ("ap-1us0FK21Ach6eiWxo22is8", "ap-WrXnJBXy23XpPh6IlH5tRX", "ap-a1b2c3d4e5f6g7h8i9j0kq")

# Width x height (docs/services/qolaba.md 2.3).
SIZES = {
    IDEOGRAM: {(720, 1280), (960, 1280), (1024, 1024), (1280, 960), (1280, 720)},
    REDUX: {(720, 1280), (800, 1000), (1024, 1024), (1280, 720), (1600, 676)},
    PULID: {(1024, 1024), (800, 1000), (720, 1280), (1280, 720), (1600, 676)},
}
# Which documented fields act, beside those that every app has.
ACTING = {
    FLUX_DEV: set(),
    IDEOGRAM: {"negative_prompt", "width", "height"},
    REDUX: {"num_inference_steps", "width", "height"},
    CANNY: {"num_inference_steps"},
    DEPTH: {"num_inference_steps"},
    PULID: {"negative_prompt", "width", "height"},
}
COMMON = {"app_id", "image", "prompt", "batch", "strength", "celery"}


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ControlNetRequest(Body):
    """POST /getImagetoImage with a ControlNet app (docs/services/qolaba.md 2.1)."""

    app_id: Annotated[str, Field(pattern=r"^ap-\w+$")]
    image: Annotated[str, Field(pattern=r"^https?://\S+$")]
    prompt: Annotated[str, Field(min_length=1)]
    guidance_scale: Annotated[float, Field(ge=1, le=30)] | None = None
    batch: Annotated[int, Field(ge=1, le=8)]
    strength: Annotated[float, Field(gt=0, le=1)]
    negative_prompt: Annotated[str, Field(min_length=1)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=50)] | None = None
    celery: bool
    inference_type: Literal["a10g", "a100", "h100"] | None = None

    @model_validator(mode="after")
    def only_what_acts_is_sent(self) -> ControlNetRequest:
        if self.app_id in ACTING and not self.model_fields_set <= COMMON | ACTING[self.app_id]:
            raise ValueError(f"not for this app: {self.model_fields_set - COMMON - ACTING[self.app_id]}")
        return self


class ImageToImageRequest(ControlNetRequest):
    """POST /getImagetoImage with an Image to Image app; steps act for some (docs/services/qolaba.md 2.2, 2.3)."""

    width: Annotated[int, Field(ge=256, le=1600)] | None = None
    height: Annotated[int, Field(ge=256, le=1600)] | None = None

    @model_validator(mode="after")
    def the_size_is_one_of_the_apps(self) -> ImageToImageRequest:
        if self.app_id in SIZES and (self.width, self.height) not in SIZES[self.app_id]:
            raise ValueError(f"{self.width}x{self.height} is not a size of this app")
        return self


class StatusRequest(Body):
    """POST /getImage."""

    id: Annotated[str, Field(min_length=1)]
    refID: str | None = None
