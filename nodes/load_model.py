"""The nodes that load a model on this machine and choose its ControlNets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from ..core.errors import ControlStackError, InvalidRequest, ModelNotFound
from ..core.memory import Offload
from ..core.modality import Modality
from ..core.problems import ProblemKind
from ..local.engine.model_cache import ModelCache, stamp
from ..local.extras.safety_check import CHECKER
from ..local.files.load import load_model
from ..local.model.part_search import Parts
from ..local.model.source import DEMO_MODEL, ModelSource, source_of
from ..models.families import FACTS, Family
from ..models.library import Library
from ..models.net_search import NetSearch
from . import comfy
from .comfy import io
from .memory import ComfyMemory
from .sockets import Model, Nets, choose

if TYPE_CHECKING:
    import torch

DEMO_NAME = "demo (embedded)"
AUTOMATIC = "automatic"
# ComfyUI's folders with models, in the order they are listed.
MODEL_FOLDERS = ("checkpoints", "diffusers", "diffusion_models")

FP8_NOT_SUPPORTED = ProblemKind(
    "fp8_not_supported", "precision is {value}, but Apple GPUs do not support fp8. Set precision to {suggestion}."
)


class ControlStackControlNetModels(io.ComfyNode):
    """A ControlNet file for each modality that should not use the one found automatically."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [AUTOMATIC, *(file.name for file in comfy.library().files("controlnet"))]
        return io.Schema(
            node_id="ControlStackControlNetModels",
            display_name="ControlNet Models",
            category="ControlStack/local",
            description="Chooses ControlNet files by hand. For a modality set to automatic, the file is found by "
            "its name and header.",
            inputs=[
                io.Combo.Input(
                    modality.value,
                    options=files,
                    default=AUTOMATIC,
                    optional=True,
                    tooltip=f"The ControlNet for {modality.title} controls: a file or diffusers folder in "
                    "models/controlnet.",
                )
                for modality in Modality
            ],
            outputs=[Nets.Output("nets", display_name="nets", tooltip="Connect to Load Local Model.")],
        )

    @classmethod
    def execute(cls, **files: str) -> io.NodeOutput:
        return io.NodeOutput({Modality(name): file for name, file in files.items() if file != AUTOMATIC})


class Precision(StrEnum):
    """Number format of the weights.

    AUTO is bf16 for FLUX and fp16 for the other families, or fp32 if the device does not compute well in these. FP8
    stores the denoiser's weights in 8 bits and computes in the format of AUTO.
    """

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"


MODELS = ModelCache()


def _drop_models() -> None:
    """Drop the loaded models when ComfyUI has dropped a node and no running graph loads a model.

    ComfyUI drops its nodes on `/free` with `free_memory`, of which custom nodes are not told otherwise, and for a graph
    without such a node. In both cases it drops its own models as well.
    """
    if not comfy.is_running("ControlStackLoadModel"):
        MODELS.clear()


class ControlStackLoadModel(io.ComfyNode):
    def __init__(self) -> None:
        """ComfyUI makes one object of a node and keeps it while the node is in the graph."""
        super().__init__()
        finalize(self, _drop_models).atexit = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        library = comfy.library()
        encoders = [AUTOMATIC, *(file.name for file in library.files("text_encoders"))]
        return io.Schema(
            node_id="ControlStackLoadModel",
            display_name="Load Local Model",
            category="ControlStack/local",
            description="Loads an SD 1.5, SDXL or FLUX.1 model: a checkpoint, a diffusers folder or separate parts. "
            "The embedded demo model needs no download.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=list(_model_paths(library)),
                    default=DEMO_NAME,
                    tooltip="The embedded demo model, or a model from ComfyUI's folders checkpoints, diffusers or "
                    "diffusion_models. The family is read from the file's header.",
                ),
                io.Combo.Input(
                    "precision",
                    options=Precision,
                    default=Precision.AUTO,
                    tooltip="Number format. auto: fp16 (bf16 for FLUX) if the device computes well in it, otherwise "
                    "fp32. fp8: the denoiser is stored in 8 bits, which halves its memory and excludes LoRAs. Use fp32 "
                    "if images are broken.",
                ),
                io.Combo.Input(
                    "offload",
                    options=Offload,
                    default=Offload.AUTO,
                    optional=True,
                    tooltip="How much of the model is on the GPU at a time. none: everything (fastest). model: what "
                    "the current stage needs. sequential: one layer (slowest). auto: the first of these that fits.",
                ),
                io.Combo.Input(
                    "vae_name",
                    options=[AUTOMATIC, *(file.name for file in library.files("vae"))],
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="A VAE to use instead of the model's own. automatic: its own, or a matching file if it has "
                    "none.",
                ),
                *(
                    io.Combo.Input(
                        f"text_encoder_{number}",
                        options=encoders,
                        default=AUTOMATIC,
                        optional=True,
                        tooltip=f"The {kind} text encoder, for a model without one. automatic: found by its header.",
                    )
                    for number, kind in ((1, "first (CLIP-L)"), (2, "second (CLIP-G for SDXL, T5 for FLUX)"))
                ),
                Nets.Input(
                    "nets",
                    optional=True,
                    tooltip="ControlNet files to use. If nothing is connected, all are found by their names and "
                    "headers.",
                ),
            ],
            outputs=[Model.Output("model", display_name="model", tooltip="Connect to Generate Locally.")],
        )

    @classmethod
    def fingerprint_inputs(
        cls,
        model_name: str = DEMO_NAME,
        vae_name: str = AUTOMATIC,
        text_encoder_1: str = AUTOMATIC,
        text_encoder_2: str = AUTOMATIC,
        **_: Any,
    ) -> str | float:
        """Changes when a file was replaced, or another one is found for a part. It is stored in saved images."""
        library = comfy.library()
        try:
            source = _source(library, model_name, _parts(vae_name, text_encoder_1, text_encoder_2))
        except ControlStackError:
            return float("nan")  # never equal, so that the node runs and raises the error
        return sha256(repr(stamp(*source.paths())).encode()).hexdigest()

    @classmethod
    def execute(
        cls,
        model_name: str,
        precision: str,
        offload: str = Offload.AUTO.value,
        vae_name: str = AUTOMATIC,
        text_encoder_1: str = AUTOMATIC,
        text_encoder_2: str = AUTOMATIC,
        nets: Mapping[Modality, str] | None = None,
    ) -> io.NodeOutput:
        import torch

        library = comfy.library()
        parts = _parts(vae_name, text_encoder_1, text_encoder_2)
        source = _source(library, model_name, parts)
        chosen_precision = choose(Precision, "precision", precision)
        chosen_offload = choose(Offload, "offload", offload)
        # A ControlNet that does not fit is an error before the model is loaded.
        NetSearch(source.family, 0, library, chosen=nets or {}).chosen_nets()
        memory = ComfyMemory()
        dtype = _dtype(chosen_precision, source.family, memory.device)
        storage_dtype = torch.float8_e4m3fn if chosen_precision is Precision.FP8 else None
        model = MODELS.get(
            (stamp(*source.paths()), dtype, storage_dtype, parts),
            lambda: load_model(source, model_name, memory, dtype, library, storage_dtype),
        )
        return io.NodeOutput(replace(model, library=library, offload=chosen_offload, nets_chosen=nets or {}))


def _model_paths(library: Library) -> dict[str, Path]:
    """Everything that can be loaded as a model, by the name shown."""
    found = {DEMO_NAME: DEMO_MODEL}
    for folder in MODEL_FOLDERS:
        for file in library.files(folder):
            if file.name != CHECKER:  # a diffusers folder, but not a model that makes images
                found.setdefault(file.name, file.path)
    return found


def _source(library: Library, model_name: str, parts: Parts) -> ModelSource:
    if path := _model_paths(library).get(model_name):
        return source_of(path, library, parts)
    raise ModelNotFound(
        f"model_name is '{model_name}', but ComfyUI has no model of this name. Put it into "
        f"{library.places(*MODEL_FOLDERS)}, or choose another model."
    )


def _parts(vae_name: str, *text_encoders: str) -> Parts:
    vae, *encoders = ("" if name == AUTOMATIC else name for name in (vae_name, *text_encoders))
    return Parts(vae, tuple(encoders))


def _dtype(precision: Precision, family: Family, device: torch.device) -> torch.dtype:
    """The number format to compute in. Raises InvalidRequest for a precision that the device does not support."""
    import torch

    if precision is Precision.FP8 and device.type == "mps":
        raise InvalidRequest("Load Local Model", [FP8_NOT_SUPPORTED("precision", precision, Precision.AUTO.value)])
    if precision in (Precision.AUTO, Precision.FP8):
        # FLUX exceeds the range of fp16, so it uses bf16 wherever that works at all, even slowly.
        if FACTS[family].flow:
            works = comfy.memory.should_use_bf16(device, prioritize_performance=False, manual_cast=True)
            return torch.bfloat16 if works else torch.float32
        return torch.float16 if comfy.memory.should_use_fp16(device) else torch.float32
    return {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}[precision]
