"""The source of a model: a diffusers folder, or a single file with parts in other files.

`source_of` decides this once. Its result has everything that depends on it: the family, the files, how to load them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFound, ModelUnreadable
from ...models.families import FACTS, Family
from ...models.headers import read_header
from ...models.inspection import FileFacts, Format, Kind, facts_of
from ...models.library import Library, read_config
from ...models.weight_files import weight_files
from .family_configs import family_configs
from .part_search import Parts, find_text_encoder, find_vae

DEMO_MODEL = Path(__file__).resolve().parents[2] / "assets" / "demo_model"

_INDEX = "model_index.json"
# The pipelines that an index may name. The task of the pipeline does not matter, only its family.
_PIPELINES: Mapping[str, tuple[Family, ...]] = {
    "StableDiffusionPipeline": (Family.SD15,),
    "StableDiffusionInpaintPipeline": (Family.SD15,),
    "StableDiffusionXLPipeline": (Family.SDXL,),
    "StableDiffusionXLInpaintPipeline": (Family.SDXL,),
    "FluxPipeline": (Family.FLUX_DEV, Family.FLUX_SCHNELL),
}


@dataclass(frozen=True)
class DiffusersFolder:
    """A diffusers folder. `index` is its model_index.json; `parts` are chosen files that replace its own networks."""

    path: Path
    family: Family
    index: Mapping[str, Any]
    parts: Mapping[str, Path]

    def paths(self) -> list[Path]:
        """Everything that is read when the model is loaded."""
        return [self.path, *self.parts.values()]


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint, or a UNet or transformer with parts in other files.

    `configs` are the configurations of the networks and of the scheduler, `files` where each network is, both by
    component. A checkpoint contains several of them.
    """

    path: Path
    family: Family
    facts: FileFacts
    configs: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path]

    def paths(self) -> list[Path]:
        """Everything that is read when the model is loaded."""
        return list(dict.fromkeys(self.files.values()))


ModelSource = DiffusersFolder | SingleFile


def source_of(path: Path, library: Library | None = None, parts: Parts | None = None) -> ModelSource:
    """The source of the model at `path`, from its index or headers. Nothing is loaded.

    `parts` are files chosen for its VAE and text encoders. Those that neither `parts` nor the model provides are looked
    up in the library. Raises ModelNotFound or ModelUnreadable.
    """
    library, parts = library or Library(), parts or Parts()
    if (path / _INDEX).is_file():
        index = read_config(path, _INDEX)
        family = _folder_family(path, index)
        return DiffusersFolder(path, family, index, parts.files(family, library))
    if path.is_dir() and not weight_files(path):
        raise ModelNotFound(f"There is no model in {path} ({_INDEX} is missing). Choose another model.")
    return _single_file(path, library, parts)


def _folder_family(folder: Path, index: Mapping[str, Any]) -> Family:
    """The family that the index names, as the denoiser's weights confirm."""
    kind = index.get("_class_name", "model of unknown kind")
    families = _PIPELINES.get(kind, ())
    if not families:
        raise ModelUnreadable(
            f"{folder} contains a {kind}. The local engine runs {_known_families()}. Choose another model."
        )
    denoiser = folder / FACTS[families[0]].denoiser
    if not denoiser.is_dir():
        raise ModelNotFound(f"The model lacks its folder {denoiser}. Download the model again.")
    found = facts_of(denoiser).family
    if found is None or found not in families:
        title = found.value if found else "of an unknown family"
        raise ModelUnreadable(
            f"The {denoiser.name} in {folder} is {title}. The local engine runs {_known_families()}. "
            "Choose another model."
        )
    return found


def _single_file(path: Path, library: Library, parts: Parts) -> SingleFile:
    facts = facts_of(path)
    family = _runnable_family(facts, path)
    configs = family_configs(family, library)
    denoiser = FACTS[family].denoiser
    configs[denoiser] |= _input_channels(facts, configs[denoiser], path) | _flux_depth(path)
    if facts.v_prediction:
        configs["scheduler"] |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": facts.zero_snr}
    files = {denoiser: path, **parts.files(family, library)}
    for name in FACTS[family].text_encoders:
        if name not in files:
            has_encoders = Kind.TEXT_ENCODER in facts.parts
            files[name] = path if has_encoders else find_text_encoder(family, configs[name], library)
    if "vae" not in files:
        files["vae"] = path if Kind.VAE in facts.parts else find_vae(family, configs["vae"], library)
    return SingleFile(path, family, facts, configs, files)


def _runnable_family(facts: FileFacts, path: Path) -> Family:
    if facts.kind not in (Kind.CHECKPOINT, Kind.DENOISER):
        raise ModelUnreadable(f"{path.name} is {facts.with_article}, not a complete model. Choose a checkpoint.")
    if facts.family is None or facts.family not in FACTS:
        title = f"the {facts.family.value} family" if facts.family else "an unknown family"
        raise ModelUnreadable(
            f"{path.name} is of {title}. The local engine runs {_known_families()}. Choose another model."
        )
    if facts.format is Format.OTHER:
        raise ModelUnreadable(f"{path.name} is in {facts.format.value}. Choose its fp16, bf16 or fp8 version.")
    return facts.family


def _known_families() -> str:
    return ", ".join(family.value for family in FACTS)


def _input_channels(facts: FileFacts, config: Mapping[str, Any], path: Path) -> dict[str, int]:
    usual = config["in_channels"]
    inpainting = usual + 5  # a mask and the masked image beside the latents
    if facts.in_channels == usual or (facts.in_channels == inpainting and "block_out_channels" in config):
        return {"in_channels": facts.in_channels}
    raise ModelUnreadable(
        f"{path.name} has {facts.in_channels} input channels, but {facts.with_article} has {usual}. It was made for "
        "another task. Choose the text-to-image model."
    )


def _flux_depth(path: Path) -> dict[str, int]:
    """How many blocks of each kind a FLUX transformer has: there are pruned ones."""
    names = "\n".join(read_header(path).tensors)
    patterns = {
        "num_layers": r"(?:double_blocks|(?<!single_)transformer_blocks)\.(\d+)\.",
        "num_single_layers": r"(?:single_blocks|single_transformer_blocks)\.(\d+)\.",
    }
    numbers = {key: [int(number) for number in re.findall(pattern, names)] for key, pattern in patterns.items()}
    return {key: max(found) + 1 for key, found in numbers.items() if found} if numbers["num_single_layers"] else {}
