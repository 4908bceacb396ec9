"""Finding the ControlNets that fit a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.errors import ModelUnreadable
from ..core.modality import Modality

# What the folder of a net of each modality is called, most specific first (names of the published SD 1.5 nets).
NET_NAMES: Mapping[Modality, tuple[str, ...]] = {
    Modality.CANNY: ("canny",),
    Modality.DEPTH: ("depth",),
    Modality.HED: ("hed", "softedge"),
    Modality.MLSD: ("mlsd",),
    Modality.NORMAL: ("normal",),
    Modality.OPENPOSE: ("openpose",),
    Modality.SCRIBBLE: ("scribble",),
    Modality.SEGMENTATION: ("seg",),
    Modality.INPAINT: ("inpaint",),
    Modality.SOFTEDGE: ("softedge", "hed"),
    Modality.LINEART: ("lineart",),
    Modality.SHUFFLE: ("shuffle",),
    Modality.TILE: ("tile",),
    Modality.FACE_DETECTOR: ("face",),
    Modality.QRCODE: ("qrcode", "qr"),
    Modality.BLUR: ("blur",),
    Modality.POSE: ("dwpose", "openpose"),
    Modality.GRAY: ("gray", "grey", "recolor"),
    Modality.LOW_QUALITY: ("low_quality", "lowquality"),
}


def read_config(folder: Path) -> dict:
    """The config.json of a diffusers folder; raises ModelUnreadable when it is missing or broken."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{path} cannot be read ({error}). Download the model again.") from error


def find_nets(folders: Sequence[Path], unet_config: Mapping) -> dict[Modality, Path]:
    """The net of each modality among diffusers folders one level below `folders` that fits the UNet.

    Earlier folders win; within one, an exact name wins over a longer one.
    """
    candidates = [
        child
        for folder in folders
        if folder.is_dir()
        for child in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
        if (child / "config.json").is_file() and fits(read_config(child), unet_config)
    ]
    found: dict[Modality, Path] = {}
    for modality, names in NET_NAMES.items():
        for name in names:
            match = next((path for path in candidates if name in path.name.lower()), None)
            if match is not None:
                found[modality] = match
                break
    return found


def fits(net_config: Mapping, unet_config: Mapping) -> bool:
    """Whether a ControlNet was made for UNets of this shape."""
    keys = ("cross_attention_dim", "block_out_channels", "in_channels")
    is_net = net_config.get("_class_name") == "ControlNetModel"
    return is_net and all(net_config.get(key) == unet_config.get(key) for key in keys)
