"""The model families: what a checkpoint, net, adapter or LoRA can belong to, and what a runnable one is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Family(str, Enum):
    """A family of models whose files fit each other. Those without facts below are recognised, and refused by name."""

    SD15 = "SD 1.5"
    SD2 = "SD 2"
    SDXL = "SDXL"
    SDXL_REFINER = "SDXL refiner"
    SD3 = "SD 3"
    FLUX_DEV = "FLUX.1 dev"
    FLUX_SCHNELL = "FLUX.1 schnell"

    @property
    def kin(self) -> Family:
        """The family whose nets, adapters and LoRAs this one takes."""
        return Family.FLUX_DEV if self is Family.FLUX_SCHNELL else self


@dataclass(frozen=True)
class FamilyFacts:
    """What the engine has to know about a family.

    `pipeline` is the class its diffusers folders name. `denoiser` and `text_encoders` are names of components; encoder
    number i reads with `tokenizers[i]`. `size` is the side in pixels it was trained at and `multiple` what sides are
    divisible by. `guidance` and `steps` suit it; `negative` says whether guidance runs a second, negative prompt.
    `tokens` is the length of the last encoder's window. `flow` models learn a velocity and need flow-matching
    schedulers.
    """

    pipeline: str
    denoiser: str
    text_encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    size: int
    multiple: int
    guidance: float
    steps: int
    tokens: int
    negative: bool
    flow: bool


_ONE, _TWO = ("text_encoder",), ("text_encoder", "text_encoder_2")
_ONE_TOKENIZER, _TWO_TOKENIZERS = ("tokenizer",), ("tokenizer", "tokenizer_2")

# Sizes, guidance and steps are those of the models' own cards.
FACTS: Mapping[Family, FamilyFacts] = {
    Family.SD15: FamilyFacts(
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        text_encoders=_ONE,
        tokenizers=_ONE_TOKENIZER,
        size=512,
        multiple=8,
        guidance=7.5,
        steps=21,
        tokens=77,
        negative=True,
        flow=False,
    ),
    Family.SDXL: FamilyFacts(
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        size=1024,
        multiple=8,
        guidance=5.0,
        steps=31,
        tokens=77,
        negative=True,
        flow=False,
    ),
    Family.FLUX_DEV: FamilyFacts(
        pipeline="FluxPipeline",
        denoiser="transformer",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        size=1024,
        multiple=16,
        guidance=3.5,
        steps=28,
        tokens=512,
        negative=False,
        flow=True,
    ),
    Family.FLUX_SCHNELL: FamilyFacts(
        pipeline="FluxPipeline",
        denoiser="transformer",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        size=1024,
        multiple=16,
        guidance=0.0,
        steps=4,
        tokens=256,
        negative=False,
        flow=True,
    ),
}
