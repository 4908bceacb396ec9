"""Loads a model from a diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelNotFound, ModelUnreadable
from ...models.families import FACTS, Family
from ...models.library import Library, read_config
from ...models.weight_files import reading
from ..model.family_configs import family_configs
from ..model.local_model import ZEROS_FOR_EMPTY
from ..model.source import DiffusersFolder
from .assemble import network_class
from .part_file import load_text_encoder, load_vae

if TYPE_CHECKING:
    import torch

# The classes a component may have. Any other class that an index names is not run.
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection", "T5EncoderModel"),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}


def load_components(source: DiffusersFolder, dtype: torch.dtype, library: Library) -> dict[str, Any]:
    """The components of the model in a diffusers folder. Raises ModelNotFound or ModelUnreadable."""
    folder, family, index = source.path, source.family, source.index
    facts = FACTS[family]
    components: dict[str, Any] = dict.fromkeys(("image_encoder", "feature_extractor"))
    for name in _network_names(source):
        components[name] = load_network(_class_of(index, name, folder), folder / name, dtype)
    for name, encoder in zip(facts.tokenizers, facts.text_encoders, strict=True):
        components[name] = _tokenizer(folder / name, t5="d_model" in components[encoder].config)
    if components["image_encoder"] is not None:
        components["feature_extractor"] = _image_processor(folder / "feature_extractor")
    if family is Family.SD15:
        components["safety_checker"] = None
    if family is Family.SDXL:
        components[ZEROS_FOR_EMPTY] = bool(index.get(ZEROS_FOR_EMPTY, True))
    configs = family_configs(family, library)
    for name, file in source.parts.items():
        load = load_vae if name == "vae" else load_text_encoder
        components[name] = load(file, configs[name], dtype)
    return components


def scheduler_config(source: DiffusersFolder) -> dict[str, Any]:
    """The configuration of the folder's scheduler. Raises ModelUnreadable."""
    return read_config(source.path / "scheduler", "scheduler_config.json")


def component_files(source: DiffusersFolder) -> dict[str, Path]:
    """Where the weights of each network are, by component."""
    return {name: source.path / name for name in _network_names(source)} | dict(source.parts)


def _network_names(source: DiffusersFolder) -> list[str]:
    facts = FACTS[source.family]
    adapters = (source.path / "ip_adapter").is_dir()
    return [facts.denoiser, "vae", *facts.text_encoders, *(["image_encoder"] if adapters else [])]


def _class_of(index: Mapping[str, Any], name: str, folder: Path) -> Any:
    entry = index.get(name)
    found = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else "nothing"
    if found not in _CLASSES[name]:
        allowed = " or ".join(_CLASSES[name])
        raise ModelUnreadable(f"{folder} has {found} as its {name}, but it must be {allowed}. Choose another model.")
    return network_class(found)


def load_network(network_type: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One network. Missing weights are an error; diffusers itself would fill them with random numbers.

    Raises ModelNotFound or ModelUnreadable.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"The model lacks its folder {folder}. Download the model again.")
    weights = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    half_only = bool(weights) and all(".fp16." in name or ".fp16-" in name for name in weights)
    with reading(folder):
        module, report = network_type.from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            variant="fp16" if half_only else None,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelUnreadable(
            f"The weights in {folder} lack {len(missing)} tensors; the first is {missing[0]}. Download the model again."
        )
    return module.eval()


def _tokenizer(folder: Path, t5: bool) -> Any:
    from transformers import CLIPTokenizer, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    with reading(folder):
        return (T5TokenizerFast if t5 else CLIPTokenizer).from_pretrained(folder, local_files_only=True)


def _image_processor(folder: Path) -> Any:
    from transformers import CLIPImageProcessor

    with reading(folder):
        return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
