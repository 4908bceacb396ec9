"""The nodes that run a request on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from ..core.errors import ControlStackError, InvalidRequest, ModelNotFound, Problem
from ..core.memory import Offload
from ..core.modality import Modality
from ..core.request import GenerationRequest
from ..local.block_cache import MAX_THRESHOLD
from ..local.families import FACTS, Family
from ..local.library import Library
from ..local.model import DEMO_MODEL, LocalModel
from ..local.model_cache import ModelCache, stamp
from ..local.net_search import NetSearch
from ..local.options import Options
from ..local.safety_check import CHECKER
from ..local.single_file import Parts
from ..local.tiled_diffusion import TILE_STEP
from ..local.token_merging import MAX_MERGED
from . import comfy
from .comfy import io
from .memory import ComfyMemory
from .sockets import Model, Nets, Request, choose
from .upscaling import FOLDER, load_upscaler

if TYPE_CHECKING:
    import torch

DEMO_NAME = "demo (embedded)"
AUTOMATIC = "automatic"
DRAW_AGAIN = "none (draw again)"
# ComfyUI's folders with models, in the order they are listed.
SOURCES = ("checkpoints", "diffusers", "diffusion_models")


class ControlStackControlNetModels(io.ComfyNode):
    """A file for each modality whose net is not the one found by itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [AUTOMATIC, *(file.name for file in comfy.library().files("controlnet"))]
        return io.Schema(
            node_id="ControlStackControlNetModels",
            display_name="ControlNet Models",
            category="ControlStack/local",
            description="Chooses ControlNet files by hand. What is left on automatic is found by name and header.",
            inputs=[
                io.Combo.Input(
                    modality.value,
                    options=files,
                    default=AUTOMATIC,
                    optional=True,
                    tooltip=f"The net for {modality.title} controls: a file or diffusers folder of models/controlnet.",
                )
                for modality in Modality
            ],
            outputs=[Nets.Output("nets", display_name="nets", tooltip="Connect to Load Local Model.")],
        )

    @classmethod
    def execute(cls, **files: str) -> io.NodeOutput:
        return io.NodeOutput({Modality(name): file for name, file in files.items() if file != AUTOMATIC})


class Precision(StrEnum):
    """Number format of the weights; AUTO is bf16 for FLUX and fp16 for the others, and fp32 where these do not work.

    FP8 keeps the denoiser's weights in 8 bits and computes in what AUTO means.
    """

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"


MODELS = ModelCache()


def _let_go() -> None:
    """The models, when ComfyUI has dropped a node and no graph is running that loads one.

    So does `/free` with `free_memory`, of which ComfyUI tells custom nodes nothing else, and a graph that has no such
    node: ComfyUI forgets its own models then.
    """
    if not comfy.is_running("ControlStackLoadModel"):
        MODELS.clear()


class ControlStackLoadModel(io.ComfyNode):
    def __init__(self) -> None:
        """ComfyUI makes one object of a node, and keeps it while the node is in the graph."""
        super().__init__()
        finalize(self, _let_go).atexit = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        library = comfy.library()
        encoders = [AUTOMATIC, *(file.name for file in library.files("text_encoders"))]
        return io.Schema(
            node_id="ControlStackLoadModel",
            display_name="Load Local Model",
            category="ControlStack/local",
            description="Loads an SD 1.5, SDXL or FLUX.1 model: a checkpoint, a diffusers folder or single parts. "
            "The embedded demo model needs no download.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=list(_sources(library)),
                    default=DEMO_NAME,
                    tooltip="The embedded demo model, or a model of ComfyUI's checkpoints, diffusers or "
                    "diffusion_models. Its header says which family it is.",
                ),
                io.Combo.Input(
                    "precision",
                    options=Precision,
                    default=Precision.AUTO,
                    tooltip="Number format: auto = fp16, for FLUX bf16, where the device computes well in it, else "
                    "fp32. fp8 = the denoiser kept in 8 bits: half the memory, no LoRAs. Use fp32 if pictures are "
                    "broken.",
                ),
                io.Combo.Input(
                    "offload",
                    options=Offload,
                    default=Offload.AUTO,
                    optional=True,
                    tooltip="How much lies on the GPU at a time: none = everything, fastest; model = what the present "
                    "stage needs; sequential = one layer, slowest; auto = the first of them that fits.",
                ),
                io.Combo.Input(
                    "vae_name",
                    options=[AUTOMATIC, *(file.name for file in library.files("vae"))],
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="Another VAE than the model's own. automatic = its own, or a fitting one if it has none.",
                ),
                *(
                    io.Combo.Input(
                        f"text_encoder_{number}",
                        options=encoders,
                        default=AUTOMATIC,
                        optional=True,
                        tooltip=f"The {kind} text encoder of a model that brings none. automatic = found by header.",
                    )
                    for number, kind in ((1, "first (CLIP-L)"), (2, "second (CLIP-G for SDXL, T5 for FLUX)"))
                ),
                Nets.Input(
                    "nets", optional=True, tooltip="ControlNet files to use; open = all are found by name and header."
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
        """Changes when a file was replaced, or another one is found for a part. It ends up in saved pictures."""
        from ..local.model import model_files

        library = comfy.library()
        try:
            source = _source(library, model_name)
            files = model_files(source, library, _parts(vae_name, text_encoder_1, text_encoder_2))
        except ControlStackError:
            return float("nan")  # run it: the error is said there
        return sha256(repr(stamp(*files)).encode()).hexdigest()

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

        from ..local.model import family_of, load_model, model_files

        library = comfy.library()
        source = _source(library, model_name)
        chosen_precision = choose(Precision, "precision", precision)
        chosen_offload = choose(Offload, "offload", offload)
        family = family_of(source)
        NetSearch(family, 0, library, chosen=nets or {}).chosen_nets()  # says what does not fit before loading
        parts = _parts(vae_name, text_encoder_1, text_encoder_2)
        memory = ComfyMemory()
        dtype = _dtype(chosen_precision, family, memory.device)
        resting = torch.float8_e4m3fn if chosen_precision is Precision.FP8 else None
        model = MODELS.get(
            (stamp(*model_files(source, library, parts)), dtype, resting, parts),
            lambda: load_model(source, model_name, memory, dtype, library, parts, resting),
        )
        return io.NodeOutput(replace(model, library=library, offload=chosen_offload, nets_chosen=nets or {}))


def _sources(library: Library) -> dict[str, Path]:
    """Everything that can be loaded as a model, by the name shown."""
    found = {DEMO_NAME: DEMO_MODEL}
    for folder in SOURCES:
        for file in library.files(folder):
            if file.name != CHECKER:  # a diffusers folder, but nothing that makes pictures
                found.setdefault(file.name, file.path)
    return found


def _source(library: Library, model_name: str) -> Path:
    if source := _sources(library).get(model_name):
        return source
    raise ModelNotFound(
        f"model_name is '{model_name}', which is not among ComfyUI's models any more. Put it back into "
        f"{library.places(*SOURCES)} or choose another."
    )


def _parts(vae_name: str, *text_encoders: str) -> Parts:
    vae, *encoders = ("" if name == AUTOMATIC else name for name in (vae_name, *text_encoders))
    return Parts(vae, tuple(encoders))


def _dtype(precision: Precision, family: Family, device: torch.device) -> torch.dtype:
    """What to compute in; raises InvalidRequest for what the device cannot do."""
    import torch

    if precision is Precision.FP8 and device.type == "mps":
        problem = Problem("precision", "fp8", "Apple's GPUs have no numbers of 8 bits", "Choose auto.")
        raise InvalidRequest("Load Local Model", [problem])
    if precision in (Precision.AUTO, Precision.FP8):
        # FLUX leaves the range of fp16: it takes bf16 wherever that works at all, be it slow.
        if FACTS[family].flow:
            works = comfy.memory.should_use_bf16(device, prioritize_performance=False, manual_cast=True)
            return torch.bfloat16 if works else torch.float32
        return torch.float16 if comfy.memory.should_use_fp16(device) else torch.float32
    return {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}[precision]


class ControlStackGenerateLocal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackGenerateLocal",
            display_name="Generate Locally",
            category="ControlStack/local",
            description="Runs a request on this machine. Everything the model cannot do is said before it starts.",
            inputs=[
                Model.Input("model", tooltip="From Load Local Model."),
                Request.Input("request", tooltip="From Generation Request."),
                io.Combo.Input(
                    "upscale_model",
                    options=[DRAW_AGAIN, *(file.name for file in comfy.library().files(FOLDER))],
                    default=DRAW_AGAIN,
                    optional=True,
                    tooltip="What makes the result twice as large, if upscale is on in the request; else it is not "
                    "used. none = the model draws its enlarged picture again.",
                ),
                io.Float.Input(
                    "merge_tokens",
                    default=0.0,
                    min=0.0,
                    max=MAX_MERGED,
                    step=0.05,
                    optional=True,
                    tooltip="Share of the UNet's tokens to merge: faster for large pictures, but it changes the "
                    "picture. 0 = off. SD 1.5 and SDXL only; needs the package tomesd.",
                ),
                io.Float.Input(
                    "block_cache",
                    default=0.0,
                    min=0.0,
                    max=MAX_THRESHOLD,
                    step=0.01,
                    optional=True,
                    tooltip="How much the first block of a FLUX.1 step may differ from before for the other blocks to "
                    "be left out: faster, but it changes the picture. 0 = off, 0.08 is usual. FLUX.1 only.",
                ),
                io.Boolean.Input(
                    "safety_check",
                    default=False,
                    optional=True,
                    tooltip="Lets Stable Diffusion's safety checker look at the finished pictures, and makes those it "
                    f"flags unrecognisable. Needs the folder {CHECKER} in models/diffusers.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=TILE_STEP,
                    optional=True,
                    tooltip="For large pictures: the UNet sees them in overlapping tiles of this many pixels, best the "
                    "size of its training (512 for SD 1.5, 1024 for SDXL), and needs memory for one tile only. "
                    "0 = off. SD 1.5 and SDXL only.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="The pictures, one batch."),
                io.String.Output("info", display_name="info", tooltip="JSON: model, seeds, scheduler and timings."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: LocalModel,
        request: GenerationRequest,
        upscale_model: str = DRAW_AGAIN,
        merge_tokens: float = 0.0,
        block_cache: float = 0.0,
        safety_check: bool = False,
        tile_size: int = 0,
    ) -> io.NodeOutput:
        from ..local.generate import generate

        enlarges = request.upscale and upscale_model != DRAW_AGAIN
        upscaler = load_upscaler(comfy.library(), upscale_model) if enlarges else None
        options = Options(upscaler, merge_tokens, block_cache, safety_check, tile_size)
        node_id, said = cls.hidden.unique_id, ""
        try:
            result = generate(model, request, comfy.report_steps(node_id), options)
            said = "\n".join(result.notes)
        finally:
            comfy.show_text(node_id, said)  # else the last step's would stay, also after an error
        info = {
            "target": "local",
            "model": model.name,
            "family": result.family,
            "task": result.task,
            "seeds": result.seeds,
            "scheduler": result.scheduler,
            "steps": request.steps,
            "nets": result.nets,
            "upscale_model": upscale_model if enlarges else None,
            "offload": result.offload,
            "flagged": result.flagged,
            "notes": result.notes,
            "seconds": result.seconds,
        }
        return io.NodeOutput(result.images, json.dumps(info))
