"""The model families: what a checkpoint, net, adapter or LoRA can belong to, and what a runnable one is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """A family of models whose files fit each other.

    Those without an entry in FACTS are recognized, so that an error message can name them, but cannot be run.
    """

    SD15 = "SD 1.5"
    SD2 = "SD 2"
    SDXL = "SDXL"
    SDXL_REFINER = "SDXL refiner"
    SD3 = "SD 3"
    FLUX_DEV = "FLUX.1 dev"
    FLUX_SCHNELL = "FLUX.1 schnell"

    @property
    def compatible_family(self) -> Family:
        """The family whose nets, adapters and LoRAs this one takes."""
        return Family.FLUX_DEV if self is Family.FLUX_SCHNELL else self


@dataclass(frozen=True)
class FamilyFacts:
    """What the engine has to know about a family.

    `denoiser` and `text_encoders` are names of components; encoder number i reads with `tokenizers[i]`. `tokens` is the
    length of the last encoder's window. `flow` models learn a velocity and need flow-matching schedulers. `activations`
    is how much memory a denoising step takes beside the weights, compared with SD 1.5 at the same size: ComfyUI's
    memory_usage_factor.
    """

    denoiser: str
    text_encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    tokens: int
    flow: bool
    activations: float


_ONE, _TWO = ("text_encoder",), ("text_encoder", "text_encoder_2")
_ONE_TOKENIZER, _TWO_TOKENIZERS = ("tokenizer",), ("tokenizer", "tokenizer_2")

FACTS: Mapping[Family, FamilyFacts] = {
    Family.SD15: FamilyFacts(
        denoiser="unet",
        text_encoders=_ONE,
        tokenizers=_ONE_TOKENIZER,
        tokens=77,
        flow=False,
        activations=1.0,
    ),
    Family.SDXL: FamilyFacts(
        denoiser="unet",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        tokens=77,
        flow=False,
        activations=0.8,
    ),
    Family.FLUX_DEV: FamilyFacts(
        denoiser="transformer",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        tokens=512,
        flow=True,
        activations=3.1,
    ),
    Family.FLUX_SCHNELL: FamilyFacts(
        denoiser="transformer",
        text_encoders=_TWO,
        tokenizers=_TWO_TOKENIZERS,
        tokens=256,
        flow=True,
        activations=3.1,
    ),
}
