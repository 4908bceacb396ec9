"""A model from single files, as ComfyUI users keep them: one with everything, or one per part."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelNotFound, ModelUnreadable
from .assemble import assemble
from .families import FACTS, Family
from .headers import read_header
from .inspection import FileFacts, Format, Kind, Layout, facts_of
from .layouts import renamed
from .library import Library, ModelFile, read_config
from .weight_files import reading
from .weights import load_tensors

if TYPE_CHECKING:
    from torch import Tensor, dtype

CONFIGS = Path(__file__).resolve().parent / "configs"
_CONFIG_NAMES = {
    Family.SD15: "sd15",
    Family.SDXL: "sdxl",
    Family.FLUX_DEV: "flux_dev",
    Family.FLUX_SCHNELL: "flux_schnell",
}


@dataclass(frozen=True)
class Loaded:
    """A model's components, the configuration of its scheduler, and the files its networks came from, by component."""

    family: Family
    components: dict[str, Any]
    scheduler_config: dict[str, Any]
    files: dict[str, Path]


@dataclass(frozen=True)
class Parts:
    """Files that take the place of those found by themselves: names in the folders `vae` and `text_encoders`."""

    vae: str = ""
    text_encoders: tuple[str, ...] = ()

    def files(self, family: Family, library: Library) -> dict[str, Path]:
        """Where the ones named here lie, by component. Raises ModelNotFound."""
        encoders = zip(FACTS[family].text_encoders, self.text_encoders, strict=False)
        named = [("vae", "vae", self.vae), *(("text_encoders", component, name) for component, name in encoders)]
        return {component: library.find(folder, name) for folder, component, name in named if name}


def family_configs(family: Family, library: Library) -> dict[str, dict[str, Any]]:
    """The configuration of every network of a family, and of its scheduler, by component."""
    return read_config(library.configs or CONFIGS, f"{_CONFIG_NAMES[family]}.json")


def runnable(facts: FileFacts, path: Path) -> Family:
    """The family of a checkpoint or denoiser that can be run; raises ModelUnreadable in words for any other file."""
    if facts.kind not in (Kind.CHECKPOINT, Kind.DENOISER):
        raise ModelUnreadable(f"{path.name} is a {facts}: it is not a model by itself. Choose a checkpoint.")
    if facts.family is None or facts.family not in FACTS:
        title = facts.family.value if facts.family else "unknown"
        known = ", ".join(family.value for family in FACTS)
        raise ModelUnreadable(f"{path.name} is of the family {title}: the local engine runs {known}. Choose another.")
    if facts.format is Format.OTHER:
        raise ModelUnreadable(f"{path.name} is in {facts.format.value}. Choose its fp16, bf16 or fp8 build.")
    return facts.family


@dataclass(frozen=True)
class Plan:
    """What headers tell about a model before anything is loaded: its configurations, and where each network lies.

    `files` is by component; a checkpoint brings several of them.
    """

    family: Family
    facts: FileFacts
    configs: dict[str, dict[str, Any]]
    files: dict[str, Path]


def plan_single_file(path: Path, library: Library, parts: Parts | None = None) -> Plan:
    """How the model in a checkpoint or denoiser file is put together.

    What the file lacks is taken from the library's `vae` and `text_encoders`, where the headers say what fits. Raises
    ModelNotFound or ModelUnreadable.
    """
    parts = parts or Parts()
    facts = facts_of(path)
    family = runnable(facts, path)
    configs = family_configs(family, library)
    denoiser = FACTS[family].denoiser
    configs[denoiser] |= _input_channels(facts, configs[denoiser], path) | _flux_depth(path)
    files = {denoiser: path, **parts.files(family, library)}
    for name in FACTS[family].text_encoders:
        if name not in files:
            files[name] = path if Kind.TEXT_ENCODER in facts.parts else _encoder_file(family, configs[name], library)
    if "vae" not in files:
        files["vae"] = path if Kind.VAE in facts.parts else _vae_file(family, configs["vae"], library)
    return Plan(family, facts, configs, files)


def load_single_file(path: Path, dtype: dtype, library: Library, parts: Parts | None = None) -> Loaded:
    """The model in a checkpoint or denoiser file, as planned. Raises ModelNotFound or ModelUnreadable."""
    plan = plan_single_file(path, library, parts)
    family, facts, configs, files = plan.family, plan.facts, plan.configs, plan.files
    denoiser = FACTS[family].denoiser
    components: dict[str, Any] = dict.fromkeys(("image_encoder", "feature_extractor"))
    components |= tokenizers(family, library)
    tensors = load_tensors(path, dtype)
    network = _below(tensors, facts.prefix)
    flux = family.compatible_family is Family.FLUX_DEV
    components[denoiser] = assemble(configs[denoiser], renamed(network, Kind.DENOISER, facts.layout, flux), path)
    own_vae = files["vae"] == path
    components["vae"] = (
        _own_vae(tensors, configs["vae"], path) if own_vae else load_vae(files["vae"], configs["vae"], dtype)
    )
    for number, name in enumerate(FACTS[family].text_encoders):
        if files[name] == path:
            components[name] = assemble(configs[name], _own_encoder(tensors, family, number), path)
        else:
            components[name] = load_text_encoder(files[name], configs[name], dtype)
    if family is Family.SD15:
        components["safety_checker"] = None
    scheduler = configs["scheduler"]
    if facts.v_prediction:
        scheduler |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": facts.zero_snr}
    return Loaded(family, components, scheduler, files)


def load_vae(path: Path, config: Mapping[str, Any], dtype: dtype) -> Any:
    """An autoencoder from a file of its own or a diffusers folder, with the family's configuration."""
    facts = facts_of(path)
    if facts.kind is not Kind.VAE:
        raise ModelUnreadable(f"{path.name} is a {facts}, not a VAE. Choose a file of models/vae.")
    if facts.in_channels != config["latent_channels"]:
        raise ModelUnreadable(
            f"The VAE {path.name} has {facts.in_channels} latent channels and the model {config['latent_channels']}: "
            "it belongs to another family. Choose another VAE."
        )
    tensors = _below(load_tensors(path, dtype), facts.prefix)
    return assemble(config, renamed(tensors, Kind.VAE, facts.layout), path)


def load_text_encoder(path: Path, config: Mapping[str, Any], dtype: dtype) -> Any:
    """A text encoder from a file of its own, with the family's configuration."""
    facts = facts_of(path)
    if facts.kind is not Kind.TEXT_ENCODER:
        raise ModelUnreadable(f"{path.name} is a {facts}, not a text encoder. Choose a file of models/text_encoders.")
    return assemble(config, renamed(load_tensors(path, dtype), Kind.TEXT_ENCODER, facts.layout), path)


def tokenizers(family: Family, library: Library) -> dict[str, Any]:
    """The tokenizers of a family, from those ComfyUI ships."""
    from transformers import CLIPTokenizer, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    facts = FACTS[family]
    made: dict[str, Any] = {}
    for number, name in enumerate(facts.tokenizers):
        t5 = number == 1 and facts.flow
        folder = library.t5_tokenizer if t5 else library.clip_tokenizer
        if folder is None or not folder.is_dir():
            raise ModelNotFound(
                f"The {'T5' if t5 else 'CLIP'} tokenizer is missing: it is part of ComfyUI, which was not found. Use a "
                "diffusers folder, which brings its own."
            )
        with reading(folder):
            if t5:
                made[name] = T5TokenizerFast.from_pretrained(folder, model_max_length=512, local_files_only=True)
            else:
                # SDXL's second encoder was trained with another filler.
                filler: dict[str, Any] = {"pad_token": "!"} if number == 1 else {}
                made[name] = CLIPTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True, **filler)
    return made


def _input_channels(facts: FileFacts, config: Mapping[str, Any], path: Path) -> dict[str, int]:
    usual = config["in_channels"]
    masked = usual + 5  # a mask and the masked picture beside the latents
    if facts.in_channels == usual or (facts.in_channels == masked and "block_out_channels" in config):
        return {"in_channels": facts.in_channels}
    raise ModelUnreadable(
        f"{path.name} takes {facts.in_channels} channels where {facts} takes {usual}: it is made for another task. "
        "Choose the plain model."
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


def _encoder_file(family: Family, config: Mapping[str, Any], library: Library) -> Path:
    """The text encoder of that configuration for a model that brings none."""
    what = "T5" if "d_model" in config else "CLIP"
    width, vocabulary = config.get("d_model") or config["hidden_size"], config["vocab_size"]
    return _only(
        library,
        "text_encoders",
        lambda file: _is_encoder(file, width, vocabulary),
        f"the {what} text encoder of {family.value} ({width} wide)",
        "choose it as text_encoder",
    )


def _is_encoder(file: ModelFile, width: int, vocabulary: int) -> bool:
    facts = facts_of(file.path)
    if facts.kind is not Kind.TEXT_ENCODER or facts.width != width:
        return False
    tensors = read_header(file.path).tensors
    return any(tensor.shape == (vocabulary, width) for name, tensor in tensors.items() if name.endswith(_WORDS))


_WORDS = ("token_embedding.weight", "shared.weight", "embed_tokens.weight")


# The VAEs of SD 1.5 and SDXL have the same shapes, as have those of FLUX and SD 3: only their names tell them apart.
_VAE_NAMES = {Family.SD15: r"^(?!.*xl)", Family.SDXL: r"xl", Family.FLUX_DEV: r"^(?!.*sd3)"}


def _vae_file(family: Family, config: Mapping[str, Any], library: Library) -> Path:
    """The autoencoder for a model that brings none."""

    def fits(file: ModelFile) -> bool:
        found = facts_of(file.path)
        alike = found.kind is Kind.VAE and found.in_channels == config["latent_channels"]
        return alike and re.search(_VAE_NAMES[family.compatible_family], file.name.lower()) is not None

    what = f"a VAE for {family.value} ({config['latent_channels']} latent channels)"
    return _only(library, "vae", fits, what, "choose it as vae_name")


def _only(library: Library, folder: str, fits: Callable[[ModelFile], bool], what: str, choose: str) -> Path:
    """The first file that fits. Raises ModelNotFound."""
    for file in library.files(folder):
        try:
            if fits(file):
                return file.path
        except (ModelUnreadable, ModelNotFound):
            continue
    raise ModelNotFound(
        f"The model needs {what}, and none that is known as one is in {library.places(folder)}. Put its file there, "
        f"{choose}, or use a checkpoint that brings everything."
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _own_vae(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> Any:
    prefix = next(p for p in ("first_stage_model.", "vae.") if any(name.startswith(p) for name in tensors))
    return assemble(config, renamed(_below(tensors, prefix), Kind.VAE, Layout.LDM), path)


# Where checkpoints keep their text encoders: prefix and layout, by family and number.
_OWN_ENCODERS: Mapping[tuple[Family, int], tuple[str, Layout]] = {
    (Family.SD15, 0): ("cond_stage_model.transformer.", Layout.DIFFUSERS),
    (Family.SDXL, 0): ("conditioner.embedders.0.transformer.", Layout.DIFFUSERS),
    (Family.SDXL, 1): ("conditioner.embedders.1.model.", Layout.OPEN_CLIP),
    (Family.FLUX_DEV, 0): ("text_encoders.clip_l.transformer.", Layout.DIFFUSERS),
    (Family.FLUX_DEV, 1): ("text_encoders.t5xxl.transformer.", Layout.DIFFUSERS),
}


def _own_encoder(tensors: Mapping[str, Tensor], family: Family, number: int) -> dict[str, Tensor]:
    prefix, layout = _OWN_ENCODERS[family.compatible_family, number]
    return renamed(_below(tensors, prefix), Kind.TEXT_ENCODER, layout)
