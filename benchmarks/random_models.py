"""Models of real size with random weights: what they draw is noise, what they cost is what the real ones cost.

The text encoders are the exception: one layer of the right width, since no benchmark here measures them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from controlstack.core.memory import Memory
from controlstack.core.modality import Modality
from controlstack.local.families import FACTS, Family
from controlstack.local.library import Library
from controlstack.local.model import LocalModel
from controlstack.local.nets import Net
from controlstack.local.single_files import family_configs
from controlstack.tests.local.tiny_models import clip_tokenizer, t5_tokenizer

MODALITIES = (Modality.CANNY, Modality.DEPTH, Modality.OPENPOSE)
_THIN = {"num_hidden_layers": 1, "num_layers": 1}
# InstantX's FLUX nets have 5 double and 10 single blocks of the transformer's 19 and 38.
_FLUX_NET = {"num_layers": 5, "num_single_layers": 10}


@dataclass(repr=False)
class RandomModel(LocalModel):
    """A model whose nets are in memory instead of on a disk."""

    networks: dict[Modality, Any] = field(default_factory=dict)

    def nets(self) -> dict[Modality, Net]:
        return {modality: Net(modality.value, Path(modality.value), modality) for modality in self.networks}

    def net(self, net: Net) -> Any:
        return self.networks[net.modality]


def random_model(family: Family, memory: Memory, dtype: torch.dtype, nets: int) -> RandomModel:
    """A model with `nets` ControlNets, for canny, depth and openpose."""
    torch.manual_seed(0)
    facts, configs = FACTS[family], family_configs(family, Library())
    networks = {name: config for name, config in configs.items() if name != "scheduler"}
    components = {name: _network(config, memory.device, dtype) for name, config in networks.items()}
    tokenizers = (clip_tokenizer, t5_tokenizer if facts.flow else clip_tokenizer)
    components |= {name: make() for name, make in zip(facts.tokenizers, tokenizers, strict=False)}
    components |= dict.fromkeys(("image_encoder", "feature_extractor"))
    denoiser = components[facts.denoiser]
    return RandomModel(
        name=f"{family.value} with random weights",
        family=family,
        source=Path("nowhere"),
        memory=memory,
        dtype=dtype,
        components=components,
        scheduler_config=configs["scheduler"],
        networks={modality: _net(denoiser, memory.device, dtype) for modality in MODALITIES[:nets]},
    )


def _network(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    options = {name: value for name, value in config.items() if name != "_class_name"}
    kind = config["_class_name"]
    with _drawn_at_random(device, dtype):
        if hasattr(diffusers, kind):
            return getattr(diffusers, kind)(**options).eval()
        thin = {name: value for name, value in _THIN.items() if name in options}
        vocabulary = {} if "d_model" in options else {"vocab_size": len(clip_tokenizer())}
        made = getattr(transformers, kind)
        return made(made.config_class(**{**options, **thin, **vocabulary})).eval()


def _net(denoiser: Any, device: torch.device, dtype: torch.dtype) -> Any:
    with _drawn_at_random(device, dtype):
        if isinstance(denoiser, diffusers.FluxTransformer2DModel):
            config = {name: value for name, value in denoiser.config.items() if not name.startswith("_")}
            known = inspect.signature(diffusers.FluxControlNetModel.__init__).parameters
            return diffusers.FluxControlNetModel(
                **{name: value for name, value in {**config, **_FLUX_NET}.items() if name in known}
            ).eval()
        return diffusers.ControlNetModel.from_unet(denoiser, load_weights_from_unet=False).to(dtype).eval()


@contextmanager
def _drawn_at_random(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Networks are made on the device, in the number format; initialising them on the CPU would take minutes."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def let_nets_act(networks: Sequence[Any]) -> None:
    """The outputs of fresh ControlNets are zero; here they are not, so that a wrong sum would be seen."""
    for net in networks:
        for name, parameter in net.named_parameters():
            if name.startswith("controlnet_") and "embed" not in name and parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
