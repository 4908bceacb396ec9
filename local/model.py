"""A model on this machine: its parts, its ControlNets and its adapters."""

from __future__ import annotations

import gc
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..core.capabilities import Capabilities
from ..core.errors import ModelNotFound, Problem
from ..core.memory import Managed, Memory, Offload
from ..core.modality import Modality
from ..core.request import GenerationRequest, ReferenceKind
from ..core.scheduler import SchedulerName
from ..core.validate import validate
from .adapter_search import (
    Adapter,
    encoder_missing,
    find_adapters,
    find_image_encoder,
)
from .autoencoders import decoding_dtype
from .capabilities import TABLES
from .controlnet_file import load_net
from .diffusers_folder import folder_family, load_folder
from .families import FACTS, Family, FamilyFacts
from .image_encoder_file import image_processor, load_image_encoder
from .inspection import facts_of
from .library import Library, read_config
from .net_search import Net, NetSearch, search_for
from .preview import LatentPreview
from .remembered import Remembered
from .safety_check import SafetyCheck, find_checker, load_checker, load_processor
from .single_file import (
    Parts,
    family_configs,
    load_single_file,
    load_text_encoder,
    load_vae,
    plan_single_file,
    runnable,
)
from .weight_files import Stamp, stamps_of, weight_files

if TYPE_CHECKING:
    import torch

DEMO_MODEL = Path(__file__).resolve().parent.parent / "assets" / "demo_model"

# Networks of files (nets, VAEs, image encoders) that stay with a model: the ones used last, and all of the present
# request. Three nets are a stack, and with one more a net can be tried in another's place without reading it anew. A
# net of FLUX takes up to 7 GB of the computer's memory.
KEPT_NETWORKS = 4
# Sets of IP-Adapters, each with its weights: up to 1.5 GB for one of FLUX.
KEPT_ADAPTERS = 2


@dataclass(frozen=True)
class Found:
    """The nets and adapters that fit a model, as they lay on the disk when they were looked for."""

    nets: Mapping[Modality, Net]
    adapters: Mapping[ReferenceKind, Adapter]


@dataclass(repr=False)
class LocalModel:
    """A loaded model of one of the families.

    `components` are what every diffusers pipeline of the family is built from. They lie wherever the memory has put
    them, and are brought to the device, as far as `offload` says, when they compute in `offload.run_offloaded`. Nets,
    adapters, LoRAs and VAEs are looked for in the library when a request needs them, so that one that was added
    meanwhile is found, and the ones used last stay with the model. `nets_chosen` names a file per modality, before the
    search. `files` says where each component came from, `resting` in which format the denoiser's weights are kept, if
    that is another than they compute in. `remembered` holds what was computed with the components before, `fittings`
    the sets of adapters used last.
    """

    name: str
    family: Family
    source: Path
    memory: Memory
    dtype: torch.dtype
    components: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    library: Library = field(default_factory=Library)
    offload: Offload = Offload.AUTO
    nets_chosen: Mapping[Modality, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    resting: torch.dtype | None = None
    remembered: Remembered = field(default_factory=Remembered)
    fittings: Remembered = field(default_factory=lambda: Remembered(KEPT_ADAPTERS))
    _loaded: OrderedDict[Path, tuple[tuple[Stamp, ...], Any]] = field(default_factory=OrderedDict)
    _expected: set[Path] = field(default_factory=set)
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

    def managed(self, module: Any) -> Managed:
        """One of the networks as the memory knows it."""
        if id(module) not in self._managed:
            self._managed[id(module)] = self.memory.manage(module)
        return self._managed[id(module)]

    def nets(self) -> dict[Modality, Net]:
        """The nets that fit the model, as they lie on the disk now."""
        return self._net_search().nets()

    def net(self, net: Net) -> Any:
        """The network of a ControlNet."""
        averaging = self.family is Family.SD15 and net.modality is Modality.SHUFFLE
        return self._kept(net.path, lambda: load_net(net.path, self.denoiser.config, self.dtype, averaging))

    def vae(self, name: str = "") -> Any:
        """The model's autoencoder, or the one of that name in the library's `vae`."""
        if not name:
            return self.components["vae"]
        path = self.library.find("vae", name)
        return self._kept(path, lambda: load_vae(path, family_configs(self.family, self.library)["vae"], self.dtype))

    def adapters(self) -> dict[ReferenceKind, Adapter]:
        """The IP-Adapters that fit the model, as they lie on the disk now."""
        config = self.denoiser.config
        width = config["joint_attention_dim"] if self.facts.flow else config["cross_attention_dim"]
        return find_adapters(self.source / "ip_adapter", self.library, width, self._feeds)

    def image_encoder_file(self, adapter: Adapter) -> Path | None:
        """Where the image encoder that feeds an adapter lies; None for the model's own. Raises ModelNotFound."""
        if self._feeds_itself(adapter):
            return None
        if path := find_image_encoder(self.library, adapter):
            return path
        raise ModelNotFound(str(encoder_missing(self.library, adapter, "A reference")))

    def image_encoder(self, adapter: Adapter) -> tuple[Any, Any]:
        """The image encoder that feeds an adapter, and what prepares pictures for it: the model's own, or a file.

        Raises ModelNotFound or ModelUnreadable.
        """
        path = self.image_encoder_file(adapter)
        if path is None:
            return self.components["image_encoder"], self.components["feature_extractor"]
        encoder = self._kept(path, lambda: load_image_encoder(path, self.dtype))
        return encoder, image_processor(encoder)

    def _feeds_itself(self, adapter: Adapter) -> bool:
        own = self.components.get("image_encoder")
        return own is not None and adapter.reads(own.config.hidden_size, own.config.projection_dim)

    def _feeds(self, adapter: Adapter) -> bool:
        return self._feeds_itself(adapter) or find_image_encoder(self.library, adapter) is not None

    def expect(self, files: Iterable[Path]) -> None:
        """Which networks of files the present request takes: they stay until another one is announced."""
        self._expected.clear()
        self._expected.update(files)

    def checker_folder(self) -> Path:
        """Where the safety checker lies. Raises ModelNotFound."""
        return find_checker(self.source, self.library)

    def safety_check(self) -> SafetyCheck:
        """What flags pictures: the model's own checker, or the library's. Raises ModelNotFound or ModelUnreadable."""
        folder = self.checker_folder()
        checker = self._kept(folder, lambda: load_checker(folder))
        return SafetyCheck(self.memory, self.managed(checker), load_processor(folder))

    def _kept(self, path: Path, load: Callable[[], Any]) -> Any:
        """The network in a file or folder, read once, and once more when the file was replaced."""
        stamps = stamps_of(path)
        if path in self._loaded and self._loaded[path][0] != stamps:
            self._forget(path)
        if path not in self._loaded:
            self._make_room()
            self._loaded[path] = (stamps, load())
        self._loaded.move_to_end(path)
        return self._loaded[path][1]

    def _make_room(self) -> None:
        """Let go of what was not used for longest, before another is read: both at once might not fit."""
        spare = [known for known in self._loaded if known not in self._expected]
        if excess := spare[: max(0, len(self._loaded) + 1 - KEPT_NETWORKS)]:
            for known in excess:
                self._forget(known)
            gc.collect()  # diffusers leaves cycles in networks that it put hooks into

    def _forget(self, path: Path) -> None:
        _, network = self._loaded.pop(path)
        self._managed.pop(id(network), None)

    @property
    def table(self) -> Capabilities:
        """What its family can do, and which scheduler a request without a choice gets."""
        own = self.scheduler_config["_class_name"]
        known = next((name for name in SchedulerName if name.value == own), None)
        table = TABLES[self.family]
        return replace(table, schedulers=replace(table.schedulers, default=known))

    def find(self) -> Found:
        """What can be used with the model; nets and adapters are looked for here, once for a generation."""
        return Found(self.nets(), self.adapters())

    def capabilities(self, found: Found | None = None) -> Capabilities:
        """The family's table, narrowed to what this model and the nets and adapters that are there can do."""
        table, found = self.table, found or self.find()
        kinds = frozenset(found.adapters)
        return replace(
            table,
            target=self.name,
            prompts=replace(table.prompts, max_clip_skip=self._most_clip_skip()),
            controls=replace(table.controls, modalities=frozenset(found.nets), remedies=self._net_search().remedies()),
            references=replace(table.references, kinds=kinds, maximum=table.references.maximum if kinds else 0),
            # A LoRA's layers would be made in the format the weights rest in, which cannot be computed with.
            loras=replace(table.loras, maximum=0 if self.resting else table.loras.maximum),
            init_images=replace(table.init_images, mask_required=self.denoiser.config.in_channels == 9),
        )

    def problems(self, request: GenerationRequest, found: Found | None = None) -> list[Problem]:
        """Everything that keeps the request from running: what the model cannot do, and which files are not there."""
        found = found or self.find()
        return [
            *validate(request, self.capabilities(found)),
            *self._missing_files(request),
            *self._unfed(request, found),
            *_textual_inversions(request),
        ]

    def _unfed(self, request: GenerationRequest, found: Found) -> Iterator[Problem]:
        for index, reference in enumerate(request.references, 1):
            adapter = found.adapters.get(reference.kind) if reference.scale != 0 else None
            if adapter and not self._feeds(adapter):
                yield encoder_missing(self.library, adapter, f"reference {index}")

    def _missing_files(self, request: GenerationRequest) -> Iterator[Problem]:
        loras = [(f"lora {index}", lora) for index, lora in enumerate(request.loras, 1) if lora.strength != 0]
        for field_name, lora in loras:
            if not lora.name:
                limit = "it lies with a service, and this machine needs a file"
                yield Problem(field_name, f"'{lora.remote_id}'", limit, "Choose one of ComfyUI's.")
        wanted = [(field_name, "loras", lora.name) for field_name, lora in loras]
        for field_name, folder, name in (*wanted, ("vae", "vae", request.vae)):
            if name and not self.library.has(folder, name):
                limit = f"it is not in {self.library.places(folder)}"
                yield Problem(field_name, f"'{name}'", limit, "Put it there or choose another file.")

    def _net_search(self) -> NetSearch:
        return search_for(self.family, self.denoiser.config, self.library, self.source / "controlnet", self.nets_chosen)

    def _most_clip_skip(self) -> int:
        """At least one layer is left; SDXL leaves the last one out by itself."""
        if self.facts.flow:
            return 0
        layers = min(self.components[name].config.num_hidden_layers for name in self.facts.text_encoders)
        return layers - len(self.facts.text_encoders)

    def preview(self, vae: Any) -> LatentPreview:
        """What turns unfinished latents into small pictures, fitted to the autoencoder they are for."""
        dtype = decoding_dtype(self.family, vae)
        return self.remembered.get(("preview", ref(vae)), lambda: LatentPreview(vae, self.device, dtype))


def _textual_inversions(request: GenerationRequest) -> Iterator[Problem]:
    """ComfyUI's own nodes replace these by trained vectors; here they would be read as plain words."""
    for name in ("prompt", "negative_prompt"):
        if found := re.search(r"\bembedding:[^\s:(),]+", getattr(request, name)):
            limit = "textual inversions are not loaded here"
            yield Problem(name, f"'{found[0]}'", limit, "Remove it, or use a LoRA or the words it stands for.")


def family_of(source: Path) -> Family:
    """The family of a model, told before anything is loaded. Raises ModelNotFound or ModelUnreadable in words."""
    if (source / "model_index.json").is_file():
        return folder_family(source, read_config(source, "model_index.json"))
    if source.is_dir() and not weight_files(source):
        raise ModelNotFound(f"There is no model in {source} (model_index.json is missing). Choose another model.")
    return runnable(facts_of(source), source)


def model_files(source: Path, library: Library, parts: Parts) -> list[Path]:
    """Everything a model is loaded from: its file or folder, and the parts that were chosen or found for it.

    Raises ModelNotFound or ModelUnreadable in words, as far as headers tell.
    """
    family = family_of(source)
    if (source / "model_index.json").is_file():
        return [source, *parts.files(family, library).values()]
    return list(dict.fromkeys(plan_single_file(source, library, parts).files.values()))


def load_model(
    source: Path,
    name: str,
    memory: Memory,
    dtype: torch.dtype,
    library: Library | None = None,
    parts: Parts | None = None,
    resting: torch.dtype | None = None,
) -> LocalModel:
    """Load a model of any family: a diffusers folder, a checkpoint, or a UNet or transformer with parts from elsewhere.

    The header decides what `source` is, before anything is loaded. The `controlnet` and `ip_adapter` folders of a
    diffusers folder come before the library's when something is looked for. `dtype` is what is computed in, `resting`
    the format that the denoiser's large layers have between two uses, where that is another. Raises ModelNotFound or
    ModelUnreadable with the path and the remedy.
    """
    library, parts = library or Library(), parts or Parts()
    family_of(source)  # says in words what cannot be run
    if (source / "model_index.json").is_file():
        loaded = load_folder(source, dtype)
        configs = family_configs(loaded.family, library)
        for part, file in parts.files(loaded.family, library).items():
            load = load_vae if part == "vae" else load_text_encoder
            loaded.components[part] = load(file, configs[part], dtype)
            loaded.files[part] = file
    else:
        loaded = load_single_file(source, dtype, library, parts)
    if resting is not None:
        denoiser = loaded.components[FACTS[loaded.family].denoiser]
        denoiser.enable_layerwise_casting(storage_dtype=resting, compute_dtype=dtype)
    return LocalModel(
        name=name,
        family=loaded.family,
        source=source,
        memory=memory,
        dtype=dtype,
        components=loaded.components,
        scheduler_config=loaded.scheduler_config,
        library=library,
        files=loaded.files,
        resting=resting,
    )
