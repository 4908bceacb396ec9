"""The names of published ControlNets, as data: which word stands for which modality, and where to download a net.

To support another net, add a word to a row. What kind of network a file contains is read from its header; which
modality it controls is only in its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum

from ..core.conventions import NetKind, union_mode
from ..core.modality import Modality
from .families import Family


class NetWord(Enum):
    """What a ControlNet is for, according to its name. The values are regular expressions for the spellings in use.

    Before matching, a name is split into words at capitals, digits and punctuation, which are joined in lower case by
    `_`.
    """

    CANNY = ("canny",)
    DEPTH = ("depth", "midas", "leres", "zoe")
    SOFTEDGE = ("soft_?edge", "hed", "pidi(net)?", "teed")
    MLSD = ("m_?lsd",)
    NORMAL = ("normals?(_?bae|_?map)?",)
    OPENPOSE = ("(open|dw)_?pose", "pose")
    SCRIBBLE = ("scribbles?", "sketch")
    SEGMENTATION = ("seg", "segmentation", "segment")
    INPAINT = ("inpaint(ing)?", "repaint")
    LINEART = ("line_?art", "any_?line", "misto_?line")
    SHUFFLE = ("shuffle",)
    TILE = ("tile", "ttplanet")
    FACE = ("face", "media_?pipe_?face", "media_?pipe")
    QRCODE = ("qr(_?code|_?pattern)?", "monster")
    BLUR = ("blur",)
    GRAY = ("gr[ae]y(_?scale)?", "recolor", "brightness", "luminance")
    LOW_QUALITY = ("low_?quality", "lq", "upscaler")
    # Uses that are not modalities of this pack. A net with such a word in its name is not used for another word either.
    OTHER = ("ip_2_p", "pix_2_pix", "hands?", "reference", "outpaint(ing)?", "any_?test")


# The nets that serve a modality. The first word is for nets made for it. The others are for similar nets, which are
# used if there is no union net.
NETS_OF: Mapping[Modality, tuple[NetWord, ...]] = {
    Modality.CANNY: (NetWord.CANNY,),
    Modality.DEPTH: (NetWord.DEPTH,),
    Modality.HED: (NetWord.SOFTEDGE,),
    Modality.MLSD: (NetWord.MLSD,),
    Modality.NORMAL: (NetWord.NORMAL,),
    Modality.OPENPOSE: (NetWord.OPENPOSE,),
    Modality.SCRIBBLE: (NetWord.SCRIBBLE,),
    Modality.SEGMENTATION: (NetWord.SEGMENTATION,),
    Modality.INPAINT: (NetWord.INPAINT,),
    Modality.SOFTEDGE: (NetWord.SOFTEDGE,),
    Modality.LINEART: (NetWord.LINEART,),
    Modality.SHUFFLE: (NetWord.SHUFFLE,),
    Modality.TILE: (NetWord.TILE,),
    Modality.FACE_DETECTOR: (NetWord.FACE,),
    Modality.QRCODE: (NetWord.QRCODE,),
    Modality.BLUR: (NetWord.BLUR, NetWord.TILE),
    Modality.POSE: (NetWord.OPENPOSE,),
    Modality.GRAY: (NetWord.GRAY,),
    Modality.LOW_QUALITY: (NetWord.LOW_QUALITY, NetWord.TILE),
}

# The union nets that take the control type as a number. The numbers are in core/conventions.py.
UNION_KINDS: Mapping[Family, NetKind] = {Family.SDXL: NetKind.SDXL_UNION, Family.FLUX_DEV: NetKind.FLUX_UNION}
# FLUX.1-dev-ControlNet-Union-Pro-2.0 takes no number: it recognizes these types by itself.
UNION_WITHOUT_MODES: Mapping[Family, frozenset[Modality]] = {
    Family.FLUX_DEV: frozenset(
        {Modality.CANNY, Modality.HED, Modality.SOFTEDGE, Modality.DEPTH, Modality.OPENPOSE, Modality.POSE}
        | {Modality.GRAY}
    )
}


def _words_of_union(family: Family) -> list[NetWord]:
    kind = UNION_KINDS[family]
    return [words[0] for modality, words in NETS_OF.items() if union_mode(kind, modality) is not None]


_SD15 = "lllyasviel/control_v11"
_XINSIR = "xinsir/controlnet-union-sdxl-1.0"
_SHAKKER = "Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro"
# Repositories on huggingface.co with a net for the word.
NET_SOURCES: Mapping[Family, Mapping[NetWord, str]] = {
    Family.SD15: {
        NetWord.CANNY: f"{_SD15}p_sd15_canny",
        NetWord.DEPTH: f"{_SD15}f1p_sd15_depth",
        NetWord.SOFTEDGE: f"{_SD15}p_sd15_softedge",
        NetWord.MLSD: f"{_SD15}p_sd15_mlsd",
        NetWord.NORMAL: f"{_SD15}p_sd15_normalbae",
        NetWord.OPENPOSE: f"{_SD15}p_sd15_openpose",
        NetWord.SCRIBBLE: f"{_SD15}p_sd15_scribble",
        NetWord.SEGMENTATION: f"{_SD15}p_sd15_seg",
        NetWord.INPAINT: f"{_SD15}p_sd15_inpaint",
        NetWord.LINEART: f"{_SD15}p_sd15_lineart",
        NetWord.SHUFFLE: f"{_SD15}e_sd15_shuffle",
        NetWord.TILE: f"{_SD15}f1e_sd15_tile",
        NetWord.FACE: "CrucibleAI/ControlNetMediaPipeFace",
        NetWord.QRCODE: "monster-labs/control_v1p_sd15_qrcode_monster",
        NetWord.GRAY: "latentcat/control_v1p_sd15_brightness",
    },
    Family.SDXL: {
        NetWord.QRCODE: "monster-labs/control_v1p_sdxl_qrcode_monster",
        **dict.fromkeys(_words_of_union(Family.SDXL), _XINSIR),
    },
    Family.FLUX_DEV: {
        **dict.fromkeys(_words_of_union(Family.FLUX_DEV), _SHAKKER),
        **{NETS_OF[modality][0]: f"{_SHAKKER}-2.0" for modality in UNION_WITHOUT_MODES[Family.FLUX_DEV]},
    },
}


def published(family: Family) -> frozenset[Modality]:
    """The modalities that have a published net in the table above. Nets on the disk may serve more."""
    words = NET_SOURCES[family.compatible_family].keys()
    return frozenset(modality for modality, served_by in NETS_OF.items() if words & set(served_by))


def words_of(name: str) -> frozenset[NetWord]:
    """The words in the name of a file or folder: CANNY for `control_v11p_sd15_canny`, none for `model`."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    text = f"_{'_'.join(part.lower() for part in parts)}_"
    return frozenset(word for word in NetWord if any(re.search(f"_{spelling}_", text) for spelling in word.value))


def word_of(path_name: str) -> NetWord | None:
    """The word in a net's own name, or else in that of its folder. None if there is no word, or more than one."""
    for part in reversed(_path_parts(path_name)):
        if words := words_of(part):
            return next(iter(words)) if len(words) == 1 else None
    return None


def _path_parts(path_name: str) -> Sequence[str]:
    return re.sub(r"\.(safetensors|sft|ckpt|pth?|bin)$", "", path_name, flags=re.IGNORECASE).split("/")
