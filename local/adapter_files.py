"""Finding the IP-Adapters that fit a model, and the image encoders that feed them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelNotFound, ModelUnreadable, Problem
from ..core.request import ReferenceKind
from .file_facts import FileFacts, Flavour, Kind, Layout, facts_of
from .layouts import renamed
from .library import PICKLES, Library
from .weights import load_tensors, reading

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapter:
    """An IP-Adapter file. `hidden` where it reads what the image encoder knows of every patch, not its summary."""

    path: Path
    hidden: bool
    image_width: int

    def reads(self, hidden_width: int, projected_width: int) -> bool:
        """Whether it can read an image encoder of these widths."""
        return self.image_width == (hidden_width if self.hidden else projected_width)


# Which build of an adapter serves a kind of reference, the best first; and whether it was made for faces, which only
# its name says.
_SERVES: Mapping[ReferenceKind, tuple[tuple[Flavour, bool], ...]] = {
    ReferenceKind.STYLE: ((Flavour.PLAIN, False), (Flavour.PLUS, False)),
    ReferenceKind.CHARACTER: ((Flavour.PLUS, False),),
    ReferenceKind.FACE: ((Flavour.PLUS, True), (Flavour.FULL, True)),
}
_FACE = re.compile(r"face", re.IGNORECASE)


def find_adapters(
    own: Path, library: Library, width: int, fed: Callable[[Adapter], bool]
) -> dict[ReferenceKind, Adapter]:
    """The adapter for each kind of reference, for a denoiser that attends to text features of this width.

    One that is `fed`, whose image encoder is there, comes before those that are not. Then come those in `own`, a folder
    of the model itself, named after their kind; of several the shortest name is taken. A file that cannot be read is
    left out with a warning.
    """
    found: dict[ReferenceKind, Adapter] = {}
    files = sorted(library.files("ipadapter"), key=lambda file: (len(Path(file.name).name), file.name))
    readable = (file.path for file in files if file.path.suffix.lower() not in PICKLES)
    known = [(path, facts) for path in readable if (facts := _facts(path)) and _fits(facts, width)]
    for kind, builds in _SERVES.items():
        named = own / f"{kind.value}.safetensors"
        fitting = [_adapter(named, facts)] if named.is_file() and (facts := _facts(named)) else []
        fitting += [
            _adapter(path, facts)
            for flavour, face in builds
            for path, facts in known
            if facts.flavour is flavour and bool(_FACE.search(path.name)) is face
        ]
        if fitting:
            found[kind] = next(filter(fed, fitting), fitting[0])
    return found


def _adapter(path: Path, facts: FileFacts) -> Adapter:
    return Adapter(path, facts.flavour is not Flavour.PLAIN, facts.image_width)


def _fits(facts: FileFacts, width: int) -> bool:
    return facts.kind is Kind.IP_ADAPTER and facts.width == width


def _facts(path: Path) -> FileFacts | None:
    try:
        return facts_of(path)
    except (ModelUnreadable, ModelNotFound) as error:
        log.warning("%s It is left out.", error)
        return None


def find_image_encoder(library: Library, adapter: Adapter) -> Path | None:
    """The image encoder in `clip_vision` that makes what the adapter reads."""
    return next(
        (path for path, facts in _image_encoders(library) if adapter.reads(facts.width, facts.image_width)), None
    )


def encoder_missing(library: Library, adapter: Adapter, field: str) -> Problem:
    """That an adapter has no image encoder, and where to get one."""
    source = _SOURCES.get((adapter.hidden, adapter.image_width))
    where = f"One is {source} on huggingface.co: put it" if source else "Put one"
    limit = (
        f"it needs an image encoder whose features are {adapter.image_width} wide, and there is none in "
        f"{library.places('clip_vision')}"
    )
    return Problem(field, f"read by {adapter.path.name}", limit, f"{where} there, or remove the reference.")


_VIT_H = "h94/IP-Adapter, models/image_encoder"
_SOURCES: Mapping[tuple[bool, int], str] = {
    (False, 1024): _VIT_H,
    (True, 1280): _VIT_H,
    (False, 1280): "h94/IP-Adapter, sdxl_models/image_encoder",
    (True, 1664): "h94/IP-Adapter, sdxl_models/image_encoder",
    (False, 768): "openai/clip-vit-large-patch14",
}


def _image_encoders(library: Library) -> Iterator[tuple[Path, FileFacts]]:
    for file in library.files("clip_vision"):
        facts = _facts(file.path)
        if facts and facts.kind is Kind.CLIP_VISION and facts.layout is Layout.DIFFUSERS:
            yield file.path, facts


def load_image_encoder(path: Path, dtype: torch.dtype) -> Any:
    """The image encoder of a single file or a transformers folder. Raises ModelUnreadable."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    if path.is_dir():
        with reading(path):
            return CLIPVisionModelWithProjection.from_pretrained(path, dtype=dtype, local_files_only=True).eval()
    facts = facts_of(path)
    with reading(path):
        tensors = renamed(load_tensors(path, dtype), facts.kind, facts.layout)
        embedding = tensors["vision_model.embeddings.patch_embedding.weight"]
        positions = tensors["vision_model.embeddings.position_embedding.weight"].shape[0] - 1
        layers = {name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")}
        config = CLIPVisionConfig(
            hidden_size=facts.width,
            intermediate_size=tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=len(layers),
            num_attention_heads=_HEADS.get(facts.width, max(1, facts.width // 64)),
            patch_size=embedding.shape[-1],
            image_size=round(positions**0.5) * embedding.shape[-1],
            projection_dim=tensors["visual_projection.weight"].shape[0],
            # OpenAI's own encoder, ViT-L, is the only one with the approximated activation.
            hidden_act="quick_gelu" if facts.width == 1024 else "gelu",
        )
        encoder: Any = CLIPVisionModelWithProjection(config)
        encoder.to(dtype)
        missing, _ = encoder.load_state_dict(tensors, strict=False)
        if lost := [name for name in missing if not name.endswith("position_ids")]:
            raise ValueError(f"{len(lost)} tensors are missing, the first is {lost[0]}")
    return encoder.eval()


_HEADS = {1024: 16, 1280: 16, 1664: 16}


def image_processor(encoder: Any) -> Any:
    """What prepares pictures for an image encoder, as CLIP's own does."""
    from transformers import CLIPImageProcessor

    side = encoder.config.image_size
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
