"""Finding the ControlNets that fit a model."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ModelUnreadable
from ..core.modality import Modality

log = logging.getLogger(__name__)

# The word of each modality in the names of published ControlNets.
NET_WORDS: Mapping[Modality, str] = {
    Modality.CANNY: "canny",
    Modality.DEPTH: "depth",
    Modality.OPENPOSE: "openpose",
}
# Words that make a net one of another kind, whatever else its name holds ("inpaint_depth_hand").
OTHER_WORDS = frozenset(
    {"inpaint", "hed", "mlsd", "normal", "scribble", "seg", "softedge", "lineart", "shuffle", "tile"}
)


@dataclass(frozen=True)
class Net:
    """A ControlNet that serves a modality. `mode` is the number under which a union net knows it, else None."""

    name: str
    path: Path
    modality: Modality
    union: bool = False
    mode: int | None = None


def read_config(folder: Path, name: str = "config.json") -> dict:
    """A JSON file of a diffusers folder; raises ModelUnreadable when it is missing or broken."""
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{path} cannot be read ({error}). Download the model again.") from error
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{path} is not a JSON object. Download the model again.")
    return content


def find_nets(folders: Sequence[Path], unet_config: Mapping) -> dict[Modality, Path]:
    """The net of each modality that fits the UNet, among the diffusers folders anywhere below `folders`.

    Earlier folders win, and within one the shortest name. A folder that cannot be read is left out with a warning.
    """
    found: dict[Modality, Path] = {}
    for folder in folders:
        for net in sorted(_net_folders(folder), key=lambda path: (len(path.name), path)):
            modality = modality_of(net.name)
            if modality and modality not in found and _fits(net, unet_config):
                found[modality] = net
    return found


def modality_of(name: str) -> Modality | None:
    """The modality a net's name speaks of, if it is exactly one."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    spoken = [modality for modality, word in NET_WORDS.items() if word in words]
    return spoken[0] if len(spoken) == 1 and not words & OTHER_WORDS else None


def _net_folders(root: Path) -> Iterator[Path]:
    for folder, children, files in os.walk(root, followlinks=True):
        if "config.json" in files:
            children.clear()
            yield Path(folder)


def _fits(net: Path, unet_config: Mapping) -> bool:
    """Whether a folder holds a ControlNet made for UNets of this shape."""
    try:
        config = read_config(net)
    except ModelUnreadable as error:
        log.warning("%s It is left out.", error)
        return False
    is_net = config.get("_class_name") == "ControlNetModel"
    return is_net and all(_same(config.get(key), unet_config.get(key)) for key in _SHAPE_KEYS)


_SHAPE_KEYS = ("cross_attention_dim", "block_out_channels", "in_channels")


def _same(a: object, b: object) -> bool:
    """Equal, whether a list came from JSON or a tuple from a loaded configuration."""
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)
