"""A model from a diffusers folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelNotFound, ModelUnreadable
from .assemble import network_class
from .families import FACTS, Family
from .inspection import facts_of
from .library import read_config
from .single_file import Loaded
from .weight_files import reading

if TYPE_CHECKING:
    import torch

# What an index may say the folder is; a pipeline for a task says the same about the family.
_PIPELINES: Mapping[str, tuple[Family, ...]] = {
    "StableDiffusionPipeline": (Family.SD15,),
    "StableDiffusionInpaintPipeline": (Family.SD15,),
    "StableDiffusionXLPipeline": (Family.SDXL,),
    "StableDiffusionXLInpaintPipeline": (Family.SDXL,),
    "FluxPipeline": (Family.FLUX_DEV, Family.FLUX_SCHNELL),
}
# The classes a component may have; what an index names beyond them is not run.
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection", "T5EncoderModel"),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}


# Whether an empty negative prompt of SDXL is all zeros instead of what its encoders make of it.
ZEROS_FOR_EMPTY = "force_zeros_for_empty_prompt"


def load_folder(folder: Path, dtype: torch.dtype) -> Loaded:
    """The model in a diffusers folder. Raises ModelNotFound or ModelUnreadable with the path and the remedy."""
    from transformers import CLIPImageProcessor

    index = read_config(folder, "model_index.json")
    family = folder_family(folder, index)
    facts = FACTS[family]
    components: dict[str, Any] = dict.fromkeys(("image_encoder", "feature_extractor"))
    adapters = (folder / "ip_adapter").is_dir()
    names = [facts.denoiser, "vae", *facts.text_encoders, *(["image_encoder"] if adapters else [])]
    for name in names:
        components[name] = load_part(_class_of(index, name, folder), folder / name, dtype)
    for name, encoder in zip(facts.tokenizers, facts.text_encoders, strict=True):
        components[name] = _tokenizer(folder / name, t5="d_model" in components[encoder].config)
    if adapters:
        with reading(folder / "feature_extractor"):
            processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
        components["feature_extractor"] = processor
    if family is Family.SD15:
        components["safety_checker"] = None
    if family is Family.SDXL:
        components[ZEROS_FOR_EMPTY] = bool(index.get(ZEROS_FOR_EMPTY, True))
    scheduler = read_config(folder / "scheduler", "scheduler_config.json")
    return Loaded(family, components, scheduler, {name: folder / name for name in names})


def folder_family(folder: Path, index: Mapping[str, Any]) -> Family:
    """The family of the model in a folder: the one its index names, as its denoiser's weights confirm."""
    kind = index.get("_class_name", "model of unknown kind")
    families = _PIPELINES.get(kind, ())
    known = ", ".join(family.value for family in FACTS)
    if not families:
        raise ModelUnreadable(f"{folder} holds a {kind}: the local engine runs {known}. Choose another model.")
    denoiser = folder / FACTS[families[0]].denoiser
    if not denoiser.is_dir():
        raise ModelNotFound(f"The model lacks its folder {denoiser}. Download the model again.")
    found = facts_of(denoiser).family
    if found is None or found not in families:
        title = found.value if found else "of an unknown family"
        raise ModelUnreadable(f"The {denoiser.name} in {folder} is {title}: the local engine runs {known}.")
    return found


def _class_of(index: Mapping[str, Any], name: str, folder: Path) -> Any:
    entry = index.get(name)
    found = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else "nothing"
    if found not in _CLASSES[name]:
        allowed = " or ".join(_CLASSES[name])
        raise ModelUnreadable(f"{folder} has {found} as its {name}: it must be {allowed}. Choose another model.")
    return network_class(found)


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One network; unlike diffusers' own loading, missing weights are an error and not random numbers."""
    if not folder.is_dir():
        raise ModelNotFound(f"The model lacks its folder {folder}. Download the model again.")
    weights = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    half_only = bool(weights) and all(".fp16." in name or ".fp16-" in name for name in weights)
    with reading(folder):
        module, report = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            variant="fp16" if half_only else None,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelUnreadable(
            f"The weights in {folder} lack {len(missing)} tensors, the first is {missing[0]}. Download the model again."
        )
    return module.eval()


def _tokenizer(folder: Path, t5: bool) -> Any:
    from transformers import CLIPTokenizer, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    with reading(folder):
        return (T5TokenizerFast if t5 else CLIPTokenizer).from_pretrained(folder, local_files_only=True)
