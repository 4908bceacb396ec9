"""The node that runs a request on this machine."""

from __future__ import annotations

import json

from ..core.request import GenerationRequest
from ..local.engine.options import Options
from ..local.extras.block_cache import MAX_THRESHOLD
from ..local.extras.safety_check import CHECKER
from ..local.extras.tiled_diffusion import TILE_STEP
from ..local.extras.token_merging import MAX_MERGED
from ..local.model.local_model import LocalModel
from . import comfy
from .comfy import io
from .sockets import Model, Request
from .upscaling import FOLDER, load_upscaler

DRAW_AGAIN = "none (draw again)"


class ControlStackGenerateLocal(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackGenerateLocal",
            display_name="Generate Locally",
            category="ControlStack/local",
            description="Runs a request on this machine. Everything that the model cannot do is reported before it "
            "starts.",
            inputs=[
                Model.Input("model", tooltip="From Load Local Model."),
                Request.Input("request", tooltip="From Generation Request."),
                io.Combo.Input(
                    "upscale_model",
                    options=[DRAW_AGAIN, *(file.name for file in comfy.library().files(FOLDER))],
                    default=DRAW_AGAIN,
                    optional=True,
                    tooltip="The model that doubles the size of the result, if upscale is on in the request. none: the "
                    "local model draws the enlarged image again.",
                ),
                io.Float.Input(
                    "merge_tokens",
                    default=0.0,
                    min=0.0,
                    max=MAX_MERGED,
                    step=0.05,
                    optional=True,
                    tooltip="Share of the UNet's tokens to merge. Faster for large images, but changes the image. "
                    "0 = off. SD 1.5 and SDXL only. Needs the package tomesd.",
                ),
                io.Float.Input(
                    "block_cache",
                    default=0.0,
                    min=0.0,
                    max=MAX_THRESHOLD,
                    step=0.01,
                    optional=True,
                    tooltip="First-block cache: skip the remaining transformer blocks when the first block's residual "
                    "changed by less than this fraction. Faster, but changes the image. 0 = off; 0.08 is typical. "
                    "FLUX.1 only.",
                ),
                io.Boolean.Input(
                    "safety_check",
                    default=False,
                    optional=True,
                    tooltip="Run Stable Diffusion's safety checker on the finished images and make those that it flags "
                    f"unrecognizable. Needs the folder {CHECKER} in models/diffusers.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=TILE_STEP,
                    optional=True,
                    tooltip="For large images: run the UNet on overlapping tiles of this many pixels, so that it needs "
                    "memory for one tile only. Use the size that it was trained on (512 for SD 1.5, 1024 for SDXL). "
                    "0 = off. SD 1.5 and SDXL only.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="The images, as one batch."),
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
        from ..local.engine.generate import generate

        enlarges = request.upscale and upscale_model != DRAW_AGAIN
        upscaler = load_upscaler(comfy.library(), upscale_model) if enlarges else None
        options = Options(upscaler, merge_tokens, block_cache, safety_check, tile_size)
        node_id, notes = cls.hidden.unique_id, ""
        try:
            result = generate(model, request, comfy.report_steps(node_id), options)
            notes = "\n".join(result.notes)
        finally:
            comfy.show_text(node_id, notes)  # replaces the text of the last step, after an error as well
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
