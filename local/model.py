"""A model on this machine: its parts, its ControlNets and its adapters, loaded from a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.capabilities import Capabilities, Range
from ..core.errors import ModelNotFound, ModelUnreadable
from ..core.modality import Modality
from ..core.request import ReferenceKind
from .capabilities import SD15
from .nets import find_nets, read_config
from .preview import LatentPreview

if TYPE_CHECKING:
    import torch
    from diffusers import ControlNetModel
    from torch import Tensor

DEMO_MODEL = Path(__file__).resolve().parent.parent / "assets" / "demo_model"


@dataclass(repr=False)
class LocalModel:
    """A loaded SD 1.5-layout model.

    `components` are what every diffusers pipeline of the family is built from. Nets are loaded when first used and then
    stay with the model.
    """

    name: str
    folder: Path
    device: torch.device
    dtype: torch.dtype
    components: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    net_paths: Mapping[Modality, Path]
    adapter_paths: Mapping[ReferenceKind, Path]
    _nets: dict[Path, ControlNetModel] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r}, {self.dtype}, {self.device})"

    @property
    def capabilities(self) -> Capabilities:
        """The family's table, narrowed to the nets and adapters that are there."""
        return replace(
            SD15,
            target=self.name,
            modalities=frozenset(self.net_paths),
            max_references=SD15.max_references if self.adapter_paths else 0,
            reference_kinds=frozenset(self.adapter_paths),
            ranges={**SD15.ranges, "clip_skip": Range(0, self.components["text_encoder"].config.num_hidden_layers - 1)},
        )

    def net(self, modality: Modality) -> ControlNetModel:
        """The ControlNet of a modality, on the model's device."""
        from diffusers import ControlNetModel

        path = self.net_paths[modality]
        if path not in self._nets:
            net = _load_part(ControlNetModel, path, self.dtype)
            self._nets[path] = net.to(self.device)
        return self._nets[path]

    def adapter(self, kind: ReferenceKind) -> dict[str, dict[str, Tensor]]:
        """The weights of an IP-Adapter, grouped as diffusers takes them."""
        from safetensors.torch import load_file

        groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, tensor in load_file(self.adapter_paths[kind]).items():
            group, name = key.split(".", 1)
            groups[group][name] = tensor
        return groups

    @cached_property
    def preview(self) -> LatentPreview:
        """Turns unfinished latents of this model into small pictures."""
        return LatentPreview(self.components["vae"])


def load_model(
    folder: Path, name: str, device: torch.device, dtype: torch.dtype, net_folders: Sequence[Path] = ()
) -> LocalModel:
    """Load a diffusers folder of an SD 1.5-layout model.

    Nets are looked for in the model's own `controlnet` folder first, then in `net_folders`. Raises ModelNotFound or
    ModelUnreadable with the path and the remedy.
    """
    import diffusers
    import transformers

    index = _read_index(folder)
    if index["_class_name"] != "StableDiffusionPipeline":
        raise ModelUnreadable(
            f"{folder} holds a {index['_class_name']}: the local engine runs Stable Diffusion 1.5. Choose another."
        )
    libraries = {"diffusers": diffusers, "transformers": transformers}

    def part(key: str) -> Any:
        library, kind = index[key]
        return _load_part(getattr(libraries[library], kind), folder / key, dtype).to(device).eval()

    components: dict[str, Any] = {key: part(key) for key in ("unet", "vae", "text_encoder")}
    components["tokenizer"] = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    components |= dict.fromkeys(("safety_checker", "image_encoder", "feature_extractor"))
    adapter_paths = {}
    if (folder / "ip_adapter").is_dir():
        components["image_encoder"] = part("image_encoder")
        components["feature_extractor"] = transformers.CLIPImageProcessor.from_pretrained(
            folder / "feature_extractor", local_files_only=True
        )
        stems = {path.stem: path for path in (folder / "ip_adapter").glob("*.safetensors")}
        adapter_paths = {kind: stems[kind.value] for kind in ReferenceKind if kind.value in stems}
    return LocalModel(
        name=name,
        folder=folder,
        device=device,
        dtype=dtype,
        components=components,
        scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")),
        net_paths=find_nets([folder / "controlnet", *net_folders], read_config(folder / "unet")),
        adapter_paths=adapter_paths,
    )


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a diffusers model."""
    return (folder / "model_index.json").is_file()


def _read_index(folder: Path) -> dict:
    path = folder / "model_index.json"
    if not path.is_file():
        raise ModelNotFound(f"There is no model in {folder} (model_index.json is missing). Choose another model.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelUnreadable(f"{path} is broken ({error}). Download the model again.") from error


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One network; unlike diffusers' own loading, missing weights are an error and not random numbers."""
    from safetensors import SafetensorError

    if not folder.is_dir():
        raise ModelNotFound(f"The model lacks its folder {folder}. Download the model again.")
    try:
        module, report = kind.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnreadable(f"The weights in {folder} cannot be read ({error}). Download the model again.") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelUnreadable(
            f"The weights in {folder} lack {len(missing)} tensors, the first is {missing[0]}. Download the model again."
        )
    return module
