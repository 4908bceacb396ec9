"""A model on this machine: its parts, its ControlNets and its adapters, loaded from a diffusers folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.capabilities import Capabilities, Range
from ..core.errors import ModelNotFound, ModelUnreadable
from ..core.memory import Managed, Memory
from ..core.modality import Modality
from ..core.request import ReferenceKind
from .capabilities import SD15
from .families import FACTS, Family, FamilyFacts
from .library import Library
from .nets import Net, find_nets, read_config
from .preview import LatentPreview
from .remembered import Remembered

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEMO_MODEL = Path(__file__).resolve().parent.parent / "assets" / "demo_model"


@dataclass(repr=False)
class LocalModel:
    """A loaded model of one of the families.

    `components` are what every diffusers pipeline of the family is built from. They lie on the CPU until `bring` puts
    them on the device, which has to be done before every use: something else may have taken their place since. Nets,
    adapters, LoRAs and VAEs are looked for in the library when a request needs them, so that one that was added
    meanwhile is found, and stay with the model once loaded. `nets_chosen` names a file per modality, before the search.
    `remembered` holds what was computed with the components before.
    """

    name: str
    family: Family
    source: Path
    memory: Memory
    dtype: torch.dtype
    components: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    library: Library = field(default_factory=Library)
    nets_chosen: Mapping[Modality, str] = field(default_factory=dict)
    remembered: Remembered = field(default_factory=Remembered)
    _loaded: dict[Path, Any] = field(default_factory=dict)
    _managed: dict[int, Managed] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r}, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.memory.device

    @property
    def facts(self) -> FamilyFacts:
        """What its family is made of."""
        return FACTS[self.family]

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.components[self.facts.denoiser]

    def bring(self, *modules: Any, room: int = 0) -> None:
        """Have these networks on the device, all at once, with `room` bytes left beside them.

        Raises torch.OutOfMemoryError when they do not fit.
        """
        for module in modules:
            if id(module) not in self._managed:
                self._managed[id(module)] = self.memory.manage(module)
        self.memory.load([self._managed[id(module)] for module in modules], room)

    def nets(self) -> dict[Modality, Net]:
        """The nets that fit the model, as they lie on the disk now."""
        roots = [self.source / "controlnet", *self.library.folders.get("controlnet", ())]
        return {
            modality: Net(path.name, path, modality)
            for modality, path in find_nets(roots, self.denoiser.config).items()
        }

    def net(self, net: Net) -> Any:
        """The network of a ControlNet."""
        from diffusers import ControlNetModel

        if net.path not in self._loaded:
            self._loaded[net.path] = _load_part(ControlNetModel, net.path, self.dtype).eval()
        return self._loaded[net.path]

    def adapters(self) -> dict[ReferenceKind, Path]:
        """The IP-Adapters that fit the model, as they lie on the disk now."""
        paths = {kind: self.source / "ip_adapter" / f"{kind.value}.safetensors" for kind in ReferenceKind}
        return {kind: path for kind, path in paths.items() if path.is_file()}

    def capabilities(self) -> Capabilities:
        """The family's table, narrowed to the nets and widened by the adapters that are there."""
        layers = self.components["text_encoder"].config.num_hidden_layers
        kinds = frozenset(self.adapters())
        return replace(
            SD15,
            target=self.name,
            modalities=frozenset(self.nets()),
            max_references=8 if kinds else 0,
            reference_kinds=kinds,
            ranges={**SD15.ranges, "clip_skip": Range(0, layers - 1)},
        )

    def adapter(self, kind: ReferenceKind) -> dict[str, dict[str, Tensor]]:
        """The weights of an IP-Adapter, grouped as diffusers takes them."""
        from safetensors.torch import load_file

        path = self.adapters()[kind]
        groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        with reading(path):
            for key, tensor in load_file(path).items():
                group, name = key.split(".", 1)
                groups[group][name] = tensor
        return groups

    @cached_property
    def preview(self) -> LatentPreview:
        """Turns unfinished latents of this model into small pictures."""
        return LatentPreview(self.components["vae"])


def load_model(
    source: Path, name: str, memory: Memory, dtype: torch.dtype, library: Library | None = None
) -> LocalModel:
    """Load a diffusers folder of an SD 1.5-layout model.

    Its own `controlnet` folder comes before the library's when nets are looked for. Raises ModelNotFound,
    ModelUnreadable or OutOfMemory with the path and the remedy.
    """
    from transformers import CLIPImageProcessor, CLIPTokenizer

    folder = source
    if not (folder / "model_index.json").is_file():
        raise ModelNotFound(f"There is no model in {folder} (model_index.json is missing). Choose another model.")
    index = read_config(folder, "model_index.json")
    kind = index.get("_class_name", "model of unknown kind")
    if kind != "StableDiffusionPipeline":
        raise ModelUnreadable(
            f"{folder} holds a {kind}: the local engine runs Stable Diffusion 1.5. Choose another model."
        )
    adapters = (folder / "ip_adapter").is_dir()
    components: dict[str, Any] = dict.fromkeys(("safety_checker", "image_encoder", "feature_extractor"))
    for key in ("unet", "vae", "text_encoder", *(["image_encoder"] if adapters else [])):
        components[key] = _load_part(_class_of(index, key, folder), folder / key, dtype).eval()
    with reading(folder / "tokenizer"):
        components["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    if adapters:
        with reading(folder / "feature_extractor"):
            processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
        components["feature_extractor"] = processor
    return LocalModel(
        name=name,
        family=Family.SD15,
        source=folder,
        memory=memory,
        dtype=dtype,
        components=components,
        scheduler_config=read_config(folder / "scheduler", "scheduler_config.json"),
        library=library or Library(),
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a library raises over a file becomes one sentence with its path."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelUnreadable(f"{path} cannot be read ({reason}). Download the model again.") from error


# The classes an SD 1.5 model may be made of; what an index names beyond them is not run.
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "image_encoder": ("CLIPVisionModelWithProjection",),
}


def _class_of(index: Mapping[str, Any], key: str, folder: Path) -> Any:
    import diffusers
    import transformers

    entry = index.get(key)
    name = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else "nothing"
    if name not in _CLASSES[key]:
        allowed = " or ".join(_CLASSES[key])
        raise ModelUnreadable(f"{folder} has {name} as its {key}: it must be {allowed}. Choose another model.")
    return getattr(diffusers if hasattr(diffusers, name) else transformers, name)


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One network; unlike diffusers' own loading, missing weights are an error and not random numbers."""
    if not folder.is_dir():
        raise ModelNotFound(f"The model lacks its folder {folder}. Download the model again.")
    weights = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    half_only = bool(weights) and all(".fp16." in name for name in weights)
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
    return module
