"""The nodes that run a request on this machine."""

from __future__ import annotations

import json
from enum import Enum

from ..core.errors import ModelNotFound
from ..core.request import GenerationRequest
from ..local.library import Library
from ..local.model import DEMO_MODEL, LocalModel
from . import comfy
from .comfy import io
from .memory import ComfyMemory
from .sockets import Model, Request, choose

DEMO_NAME = "demo (embedded)"


class Precision(str, Enum):
    """Number format of the weights; AUTO is fp32 on the CPU and fp16 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class ControlStackLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackLoadModel",
            display_name="Load Local Model",
            category="ControlStack/local",
            description="Loads a Stable Diffusion 1.5 model and finds the ControlNets that fit it. "
            "The embedded demo model needs no download.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[DEMO_NAME, *comfy.model_folders()],
                    default=DEMO_NAME,
                    tooltip="The embedded demo model, or a diffusers folder in ComfyUI's models/diffusers.",
                ),
                io.Combo.Input(
                    "precision",
                    options=Precision,
                    default=Precision.AUTO,
                    tooltip="Number format: auto = fp32 on the CPU, fp16 elsewhere. Use fp32 if pictures are broken.",
                ),
            ],
            outputs=[Model.Output("model", display_name="model", tooltip="Connect to Generate Locally.")],
        )

    @classmethod
    def execute(cls, model_name: str, precision: str) -> io.NodeOutput:
        import torch

        from ..local.model import load_model

        folder = DEMO_MODEL if model_name == DEMO_NAME else comfy.model_folders().get(model_name)
        if folder is None:
            raise ModelNotFound(
                f"model_name is '{model_name}', which is not among ComfyUI's diffusers models any more. "
                f"Put it back into models/diffusers or choose another."
            )
        memory = ComfyMemory()
        chosen = choose(Precision, "precision", precision)
        automatic = torch.float32 if memory.device.type == "cpu" else torch.float16
        dtypes = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
        return io.NodeOutput(
            load_model(folder, model_name, memory, dtypes.get(chosen, automatic), Library(comfy.all_model_folders()))
        )


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
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="The pictures, one batch."),
                io.String.Output("info", display_name="info", tooltip="JSON: model, seeds, scheduler and timings."),
            ],
        )

    @classmethod
    def execute(cls, model: LocalModel, request: GenerationRequest) -> io.NodeOutput:
        from ..local.generate import generate

        result = generate(model, request, comfy.report_steps())
        info = {
            "target": "local",
            "model": model.name,
            "seeds": result.seeds,
            "scheduler": result.scheduler,
            "steps": request.steps,
            "nets": result.nets,
            "seconds": result.seconds,
        }
        return io.NodeOutput(result.images, json.dumps(info))
