"""Finds the IP-Adapters that fit a model, and the image encoders that they need."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ModelNotFound, ModelUnreadable
from ..core.problems import Problem, ProblemKind
from ..core.request import ReferenceKind
from .inspection import AdapterVariant, FileFacts, Kind, Layout, facts_of
from .library import Library
from .weight_files import is_pickle

log = logging.getLogger(__name__)

KNOWN_ENCODER_MISSING = ProblemKind(
    "known_image_encoder_missing",
    "{field} uses the IP-Adapter {value}, which needs an image encoder with features {width} wide. There is none in "
    "{places}. Put {source} from huggingface.co there, or disconnect the reference.",
)
ENCODER_MISSING = ProblemKind(
    "image_encoder_missing",
    "{field} uses the IP-Adapter {value}, which needs an image encoder with features {width} wide. There is none in "
    "{places}. Put one there, or disconnect the reference.",
)


@dataclass(frozen=True)
class Adapter:
    """An IP-Adapter file.

    With `hidden` it takes the image encoder's hidden state of every patch, otherwise the projected embedding of the
    whole image. `image_width` is the width of these features.
    """

    path: Path
    hidden: bool
    image_width: int

    def reads(self, hidden_width: int, projected_width: int) -> bool:
        """Whether it takes the features of an image encoder with these widths."""
        return self.image_width == (hidden_width if self.hidden else projected_width)


# Which variants of an IP-Adapter serve a kind of reference, the best first, and whether it must be one for faces, which
# only its name tells.
_VARIANTS: Mapping[ReferenceKind, tuple[tuple[AdapterVariant, bool], ...]] = {
    ReferenceKind.STYLE: ((AdapterVariant.PLAIN, False), (AdapterVariant.PLUS, False)),
    ReferenceKind.CHARACTER: ((AdapterVariant.PLUS, False),),
    ReferenceKind.FACE: ((AdapterVariant.PLUS, True), (AdapterVariant.FULL, True)),
}
_FACE = re.compile(r"face", re.IGNORECASE)


def find_adapters(
    own: Path, library: Library, width: int, has_encoder: Callable[[Adapter], bool]
) -> dict[ReferenceKind, Adapter]:
    """The adapter for each kind of reference, for a denoiser that attends to text features of this width.

    Adapters whose image encoder is available (`has_encoder`) come first. Among these, files in `own`, the model's own
    folder, where they are named after the kind, come before those in the library, and shorter names before longer ones.
    A file that cannot be read is skipped with a warning.
    """
    found: dict[ReferenceKind, Adapter] = {}
    files = sorted(library.files("ipadapter"), key=lambda file: (len(Path(file.name).name), file.name))
    readable = (file.path for file in files if not is_pickle(file.path))
    known = [(path, facts) for path in readable if (facts := _facts(path)) and _fits(facts, width)]
    for kind, variants in _VARIANTS.items():
        named = own / f"{kind.value}.safetensors"
        fitting = [_adapter(named, facts)] if named.is_file() and (facts := _facts(named)) else []
        fitting += [
            _adapter(path, facts)
            for variant, for_faces in variants
            for path, facts in known
            if facts.variant is variant and bool(_FACE.search(path.name)) is for_faces
        ]
        if fitting:
            found[kind] = next(filter(has_encoder, fitting), fitting[0])
    return found


def _adapter(path: Path, facts: FileFacts) -> Adapter:
    return Adapter(path, facts.variant is not AdapterVariant.PLAIN, facts.image_width)


def _fits(facts: FileFacts, width: int) -> bool:
    return facts.kind is Kind.IP_ADAPTER and facts.width == width


def _facts(path: Path) -> FileFacts | None:
    try:
        return facts_of(path)
    except (ModelUnreadable, ModelNotFound) as error:
        log.warning("%s The file is skipped.", error)
        return None


def find_image_encoder(library: Library, adapter: Adapter) -> Path | None:
    """The first image encoder in `clip_vision` whose features the adapter takes, or None."""
    return next(
        (path for path, facts in _image_encoders(library) if adapter.reads(facts.width, facts.image_width)), None
    )


def encoder_missing(library: Library, adapter: Adapter, field: str) -> Problem:
    """The problem that an adapter has no image encoder. Says where to get one, if that is known."""
    places = library.places("clip_vision")
    if source := _ENCODER_SOURCES.get((adapter.hidden, adapter.image_width)):
        return KNOWN_ENCODER_MISSING(field, adapter.path.name, width=adapter.image_width, places=places, source=source)
    return ENCODER_MISSING(field, adapter.path.name, width=adapter.image_width, places=places)


_VIT_H = "h94/IP-Adapter, models/image_encoder"
_ENCODER_SOURCES: Mapping[tuple[bool, int], str] = {
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
