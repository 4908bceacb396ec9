"""Models of real size with random weights: they draw noise, and cost as much as the real ones.

Only the text encoders are smaller, with two layers of the right width, because no benchmark measures them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from controlstack.core.memory import Managed, Memory
from controlstack.core.modality import Modality
from controlstack.core.request import GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import Inventory
from controlstack.local.model.family_configs import family_configs
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.network_cache import NetworkCache
from controlstack.models.families import FACTS, Family
from controlstack.models.library import Library
from controlstack.models.net_search import Net
from controlstack.tests.local.tiny_models import clip_tokenizer, t5_tokenizer
from torch import Tensor

MODALITIES = (Modality.CANNY, Modality.DEPTH, Modality.OPENPOSE)
_THIN = {"num_hidden_layers": 2, "num_layers": 2}  # SDXL reads the last layer but one
# InstantX's FLUX nets have 5 double and 10 single blocks of the transformer's 19 and 38.
_FLUX_NET = {"num_layers": 5, "num_single_layers": 10}


@dataclass(frozen=True)
class Usual:
    """The recommendation of a family's model card: the side of the image in pixels, and the guidance scale."""

    side: int
    guidance: float


USUAL = {Family.SD15: Usual(512, 7.5), Family.SDXL: Usual(1024, 5.0), Family.FLUX_DEV: Usual(1024, 3.5)}

Changes = Mapping[str, Mapping[str, Any]]
"""Changed entries in the configurations of a model's components, by the names of the components."""

# FLUX's 12 billion parameters do not fit an ordinary computer. These few blocks are as wide as its own.
SHALLOW_FLUX: Changes = {"transformer": {"num_layers": 1, "num_single_layers": 1}}

_TINY_VAE = {"block_out_channels": (32,) * 4}
_TINY_XL = {"block_out_channels": (32,) * 3, "transformer_layers_per_block": (1,) * 3, "attention_head_dim": (2,) * 3}
_TINY_FLUX = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 64}
_TINY_T5 = {"d_model": 64, "d_ff": 64, "num_heads": 2, "vocab_size": 64}
TINY: Mapping[Family, Changes] = {
    Family.SD15: {"unet": {"block_out_channels": (32,) * 4}, "vae": _TINY_VAE},
    Family.SDXL: {"unet": _TINY_XL, "vae": _TINY_VAE},
    Family.FLUX_DEV: {"transformer": _TINY_FLUX, "vae": _TINY_VAE, "text_encoder_2": _TINY_T5},
}
"""For rehearsals: all code paths in seconds. The figures mean nothing."""


class NetsInMemory(NetworkCache):
    """ControlNets in memory instead of in files, by modality."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.nets: dict[Modality, Managed] = {}

    def from_file(self, path: Path, load: Callable[[], Any]) -> Managed:
        return self.nets[Modality(path.name)]


@dataclass(frozen=True)
class RandomModel:
    """A model with random weights, and its ControlNets."""

    model: LocalModel
    nets: dict[Modality, Managed]

    @property
    def inventory(self) -> Inventory:
        return Inventory({modality: Net(modality.value, Path(modality.value), modality) for modality in self.nets})

    def generate(self, request: GenerationRequest) -> Tensor:
        return generate(self.model, request, inventory=self.inventory).images


def random_model(
    family: Family, memory: Memory, dtype: torch.dtype, nets: int, changes: Changes | None = None
) -> RandomModel:
    """A model on the memory's device, with `nets` (0..3) ControlNets that act: for canny, depth and openpose."""
    torch.manual_seed(0)
    facts, configs = FACTS[family], family_configs(family, Library())
    scheduler = configs.pop("scheduler")
    changed = {name: {**config, **(changes or {}).get(name, {})} for name, config in configs.items()}
    networks = {name: _network(config, memory.device, dtype) for name, config in changed.items()}
    tokenizers = (clip_tokenizer, t5_tokenizer if facts.flow else clip_tokenizer)
    others = {name: make() for name, make in zip(facts.tokenizers, tokenizers, strict=False)}
    others |= dict.fromkeys(("image_encoder", "feature_extractor"))
    kept = NetsInMemory(memory)
    for modality in MODALITIES[:nets]:
        kept.nets[modality] = memory.manage(_net(networks[facts.denoiser], memory.device, dtype))
    model = LocalModel(
        name=f"{family.value} with random weights",
        family=family,
        source=Path("nowhere"),
        dtype=dtype,
        components={**networks, **others},
        scheduler_config=scheduler,
        networks=kept,
    )
    # Modules that the memory does not manage would count as used by others, and the engine would offload.
    memory.load([*map(model.managed, networks), *kept.nets.values()])
    return RandomModel(model, kept.nets)


def _network(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    options = {name: value for name, value in config.items() if name != "_class_name"}
    kind = config["_class_name"]
    with _random_weights(device, dtype):
        if hasattr(diffusers, kind):
            return getattr(diffusers, kind)(**options).eval()
        thin = {name: value for name, value in _THIN.items() if name in options}
        vocabulary = {} if "d_model" in options else {"vocab_size": len(clip_tokenizer())}
        made = getattr(transformers, kind)
        return made(made.config_class(**{**options, **thin, **vocabulary})).eval()


def _net(denoiser: Any, device: torch.device, dtype: torch.dtype) -> Any:
    with _random_weights(device, dtype):
        if isinstance(denoiser, diffusers.FluxTransformer2DModel):
            config = {name: value for name, value in denoiser.config.items() if not name.startswith("_")}
            depth = {name: min(blocks, config[name]) for name, blocks in _FLUX_NET.items()}
            known = inspect.signature(diffusers.FluxControlNetModel.__init__).parameters
            return _with_effect(
                diffusers.FluxControlNetModel(
                    **{name: value for name, value in {**config, **depth}.items() if name in known}
                )
            )
        return _with_effect(diffusers.ControlNetModel.from_unet(denoiser, load_weights_from_unet=False))


@contextmanager
def _random_weights(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within this context networks are created on the device and in the dtype; on the CPU that would take minutes."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _with_effect(net: Any) -> Any:
    """Replace the zero layers of a new ControlNet by random ones, so that a wrong hint or sum changes the image."""
    for parameter in net.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return net.eval()


def random_map(side: int, seed: int) -> Tensor:
    """Noise [1, side, side, 3] in 0..0.4: a bright map would be taken for black lines on white, and inverted."""
    return 0.4 * torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(seed))
