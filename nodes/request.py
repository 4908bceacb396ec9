"""The nodes that describe a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, ModelNotFound, Problem
from ..core.request import ControlUnit, GenerationRequest, ImageReference, Lora, ReferenceKind
from ..core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from ..local.schedulers import NOTES
from .comfy import io, lora_names
from .sockets import Controls, Loras, References, Request, Scheduler, choose, window_inputs

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT = "default"
_REMOTE = "(remote)"


class ControlStackReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackReference",
            display_name="Reference Image (IP-Adapter)",
            category="ControlStack",
            description="Lets the result take its look from one or more pictures, beside the prompt.",
            inputs=[
                io.Image.Input("image", tooltip="The reference. A batch counts as several pictures of the same thing."),
                io.Float.Input(
                    "scale",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the reference acts, 0 to 1. 0 leaves it out.",
                ),
                io.Combo.Input(
                    "kind",
                    options=ReferenceKind,
                    default=ReferenceKind.STYLE,
                    tooltip="What to take over: style = colours and mood, character = the figure, face = the face.",
                ),
                *window_inputs("reference"),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Limits the reference to the white area of the result, where supported; the mask is "
                    "stretched over all of it.",
                ),
                References.Input("references", optional=True, tooltip="Earlier references; leave open to begin."),
            ],
            outputs=[
                References.Output("all", display_name="references", tooltip="The references with this one at the end.")
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        scale: float,
        kind: str,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
        references: tuple[ImageReference, ...] = (),
    ) -> io.NodeOutput:
        chosen = choose(ReferenceKind, "kind", kind)
        return io.NodeOutput((*references, ImageReference(image, scale, chosen, start_percent, end_percent, mask)))


class ControlStackLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackLora",
            display_name="LoRA",
            category="ControlStack",
            description="Adds a LoRA. With a file and an id, the same request runs here and at a service.",
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=[_REMOTE, *lora_names()],
                    default=_REMOTE,
                    tooltip="A file in ComfyUI's models/loras, for this machine; (remote) = only at a service.",
                ),
                io.String.Input(
                    "remote_id", default="", tooltip="The LoRA's id at the service. Empty: only on this machine."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly it acts. 0 leaves it out; services take positive ones only.",
                ),
                Loras.Input("loras", optional=True, tooltip="Earlier LoRAs; leave open to begin."),
            ],
            outputs=[Loras.Output("all", display_name="loras", tooltip="The LoRAs with this one at the end.")],
        )

    @classmethod
    def execute(cls, lora_name: str, remote_id: str, strength: float, loras: tuple[Lora, ...] = ()) -> io.NodeOutput:
        name, remote = "" if lora_name == _REMOTE else lora_name, remote_id.strip()
        if name and name not in lora_names():
            raise ModelNotFound(
                f"lora_name is '{name}', which is not among ComfyUI's LoRAs any more. "
                f"Put it back into models/loras or choose another."
            )
        if not name and not remote:
            limit = f"with lora_name {_REMOTE} it says which LoRA of the service to use"
            remedy = "Enter the LoRA's id at the service, or choose a file."
            raise InvalidRequest("LoRA", [Problem("remote_id", "empty", limit, remedy)])
        return io.NodeOutput((*loras, Lora(name, remote, strength)))


class ControlStackScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackScheduler",
            display_name="Scheduler",
            category="ControlStack",
            description="Chooses the sampling method by the name that diffusers and the services share.",
            inputs=[
                io.Combo.Input(
                    "scheduler",
                    options=[_DEFAULT, *(name.value for name in SchedulerName)],
                    default=_DEFAULT,
                    tooltip="default = what the model or the service uses by itself. On this machine "
                    + "; ".join(f"{name.value} {note}" for name, note in NOTES.items())
                    + ".",
                ),
                io.Boolean.Input(
                    "use_karras_sigmas",
                    default=False,
                    tooltip="Noise levels after Karras et al. 2022: more steps at low noise. Not every scheduler can.",
                ),
                io.Combo.Input(
                    "algorithm_type",
                    options=[_DEFAULT, *(kind.value for kind in AlgorithmType)],
                    default=_DEFAULT,
                    tooltip="Variant of the DPMSolver schedulers; sde types add noise at every step.",
                ),
            ],
            outputs=[Scheduler.Output("choice", display_name="scheduler", tooltip="Connect to a Generation Request.")],
        )

    @classmethod
    def execute(cls, scheduler: str, use_karras_sigmas: bool, algorithm_type: str) -> io.NodeOutput:
        name = None if scheduler == _DEFAULT else choose(SchedulerName, "scheduler", scheduler)
        kind = None if algorithm_type == _DEFAULT else choose(AlgorithmType, "algorithm_type", algorithm_type)
        return io.NodeOutput(SchedulerChoice(name, use_karras_sigmas, kind))


class ControlStackRequest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackRequest",
            display_name="Generation Request",
            category="ControlStack",
            description="Everything about a generation except where it runs. Connect it to a local or a remote node.",
            inputs=[
                io.String.Input("prompt", multiline=True, default="", tooltip="What the picture shows. May be empty."),
                io.String.Input("negative_prompt", multiline=True, default="", tooltip="What it should not show."),
                io.Int.Input(
                    "width",
                    default=512,
                    min=64,
                    max=8192,
                    step=8,
                    tooltip="Width in pixels, a multiple of 8. 512 suits SD 1.5, 1024 SDXL and FLUX.",
                ),
                io.Int.Input(
                    "height", default=512, min=64, max=8192, step=8, tooltip="Height in pixels, a multiple of 8."
                ),
                io.Int.Input(
                    "steps", default=21, min=1, max=1000, tooltip="Denoising steps. 21 or 31 suit all targets."
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=7.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt: 7.5 suits SD 1.5, 5 SDXL, 3.5 FLUX. 1 switches guidance "
                    "and the negative prompt off.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Same seed, same picture. Image number i of a batch uses seed + i.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=128, tooltip="How many pictures to make."),
                io.Int.Input(
                    "clip_skip",
                    default=0,
                    min=0,
                    max=12,
                    tooltip="Leaves out this many last layers of the text encoder.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="With init_image: how much of it to replace, 0 nothing to 1 everything.",
                ),
                Controls.Input("controls", optional=True, tooltip="The control stack."),
                References.Input("references", optional=True, tooltip="Reference images (IP-Adapter)."),
                Loras.Input("loras", optional=True, tooltip="LoRAs to apply."),
                Scheduler.Input(
                    "scheduler", optional=True, tooltip="The sampling method; open = the target's default."
                ),
                io.Image.Input("init_image", optional=True, tooltip="A picture to start from instead of noise."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="The white area of init_image is redrawn, the rest is kept."
                ),
                io.String.Input(
                    "vae", default="", optional=True, tooltip="Another VAE, by its name or id. Empty: the model's own."
                ),
                io.Boolean.Input(
                    "upscale", default=False, optional=True, tooltip="Enlarges the result, where the target can."
                ),
            ],
            outputs=[
                Request.Output(
                    "request", display_name="request", tooltip="Connect to Generate Locally or to a remote node."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        prompt: str,
        negative_prompt: str,
        width: int,
        height: int,
        steps: int,
        guidance_scale: float,
        seed: int,
        batch_size: int,
        clip_skip: int,
        denoise: float,
        controls: tuple[ControlUnit, ...] = (),
        references: tuple[ImageReference, ...] = (),
        loras: tuple[Lora, ...] = (),
        scheduler: SchedulerChoice | None = None,
        init_image: Tensor | None = None,
        mask: Tensor | None = None,
        vae: str = "",
        upscale: bool = False,
    ) -> io.NodeOutput:
        request = GenerationRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance_scale,
            seed=seed,
            batch_size=batch_size,
            clip_skip=clip_skip,
            denoise=denoise,
            controls=controls,
            references=references,
            loras=loras,
            scheduler=scheduler or SchedulerChoice(),
            init_image=init_image,
            mask=mask,
            vae=vae.strip(),
            upscale=upscale,
        )
        return io.NodeOutput(request)
