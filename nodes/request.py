"""The nodes that describe a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, ModelNotFound
from ..core.problems import ProblemKind
from ..core.request import ControlUnit, GenerationRequest, ImageReference, Lora, ReferenceKind
from ..core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from ..local.schedulers.factory import NOTES
from .comfy import io, lora_names
from .sockets import Controls, Loras, References, Request, Scheduler, choose, window_inputs

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT = "default"
_REMOTE = "(remote)"

REMOTE_ID_MISSING = ProblemKind(
    "remote_id_missing",
    f"{{field}} is empty, but lora_name is {_REMOTE}. Enter the LoRA's id at the service, or choose a file.",
)


class ControlStackReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackReference",
            display_name="Reference Image (IP-Adapter)",
            category="ControlStack",
            description="Guides the result with the look of one or more reference images, in addition to the prompt.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The reference image. A batch is used as several images of the same subject."
                ),
                io.Float.Input(
                    "scale",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Strength of the reference, 0 to 1. 0 = off.",
                ),
                io.Combo.Input(
                    "kind",
                    options=ReferenceKind,
                    default=ReferenceKind.STYLE,
                    tooltip="What to take from the image. style: colors and mood. character: the figure. face: the "
                    "face.",
                ),
                *window_inputs("reference"),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Limits the reference to the white area of the mask, which is stretched to the size of "
                    "the result. "
                    "Not every target supports this.",
                ),
                References.Input("references", optional=True, tooltip="References from an earlier node. Optional."),
            ],
            outputs=[
                References.Output(
                    "all", display_name="references", tooltip="The earlier references, followed by this one."
                )
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
            description="Adds a LoRA. Choose a file for this machine, an id for a service, or both so that the same "
            "request runs on either.",
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=[_REMOTE, *lora_names()],
                    default=_REMOTE,
                    tooltip="The LoRA file in ComfyUI's models/loras, for this machine. (remote): no file, use the "
                    "LoRA only at a service.",
                ),
                io.String.Input(
                    "remote_id",
                    default="",
                    tooltip="The LoRA's id at the service. Empty: use the LoRA only on this machine.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Strength of the LoRA. 0 = off. Services accept only positive values.",
                ),
                Loras.Input("loras", optional=True, tooltip="LoRAs from an earlier node. Optional."),
            ],
            outputs=[Loras.Output("all", display_name="loras", tooltip="The earlier LoRAs, followed by this one.")],
        )

    @classmethod
    def execute(cls, lora_name: str, remote_id: str, strength: float, loras: tuple[Lora, ...] = ()) -> io.NodeOutput:
        name, remote = "" if lora_name == _REMOTE else lora_name, remote_id.strip()
        if name and name not in lora_names():
            raise ModelNotFound(
                f"lora_name is '{name}', but ComfyUI has no LoRA of this name. "
                f"Put the file into models/loras, or choose another LoRA."
            )
        if not name and not remote:
            raise InvalidRequest("LoRA", [REMOTE_ID_MISSING("remote_id", "")])
        return io.NodeOutput((*loras, Lora(name, remote, strength)))


def _scheduler_needs() -> str:
    """What schedulers need for a good image, each with the schedulers that need it."""
    needs = dict.fromkeys(NOTES.values())
    named = {need: ", ".join(name.value for name in NOTES if NOTES[name] == need) for need in needs}
    return "; ".join(f"{need} ({names})" for need, names in named.items())


class ControlStackScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackScheduler",
            display_name="Scheduler",
            category="ControlStack",
            description="Chooses the scheduler (sampling method) by its diffusers name, which the services use as "
            "well.",
            inputs=[
                io.Combo.Input(
                    "scheduler",
                    options=[_DEFAULT, *(name.value for name in SchedulerName)],
                    default=_DEFAULT,
                    tooltip="default: what the model or the service uses by itself. Needed on this machine: "
                    f"{_scheduler_needs()}.",
                ),
                io.Boolean.Input(
                    "use_karras_sigmas",
                    default=False,
                    tooltip="Use the noise schedule of Karras et al. 2022, with more steps at low noise. Not every "
                    "scheduler supports it.",
                ),
                io.Combo.Input(
                    "algorithm_type",
                    options=[_DEFAULT, *(kind.value for kind in AlgorithmType)],
                    default=_DEFAULT,
                    tooltip="Variant of the DPMSolver schedulers. The sde variants add noise at every step.",
                ),
            ],
            outputs=[
                Scheduler.Output("choice", display_name="scheduler", tooltip="Connect it to a Generation Request.")
            ],
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
            description="Describes what to generate. The node that you connect it to decides where it runs: on this "
            "machine or at a service.",
            inputs=[
                io.String.Input(
                    "prompt", multiline=True, default="", tooltip="What the image should show. May be empty."
                ),
                io.String.Input(
                    "negative_prompt", multiline=True, default="", tooltip="What the image should not show."
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=64,
                    max=8192,
                    step=8,
                    tooltip="Width in pixels, a multiple of 8. Use 512 for SD 1.5, 1024 for SDXL and FLUX.",
                ),
                io.Int.Input(
                    "height", default=512, min=64, max=8192, step=8, tooltip="Height in pixels, a multiple of 8."
                ),
                io.Int.Input(
                    "steps",
                    default=21,
                    min=1,
                    max=1000,
                    tooltip="Number of denoising steps. The maximum depends on the target.",
                ),
                io.Float.Input(
                    "guidance_scale",
                    default=7.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt. Use 7.5 for SD 1.5, 5 for SDXL, 3.5 for FLUX. 1 turns "
                    "guidance and the negative prompt off.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Seed of the noise: the same seed gives the same image. Image i of a batch uses seed + i.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=128, tooltip="Number of images to generate."),
                io.Int.Input(
                    "clip_skip",
                    default=0,
                    min=0,
                    max=12,
                    tooltip="Number of the text encoder's last layers to skip.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="With init_image: how much of it to replace, from 0 (nothing) to 1 (everything).",
                ),
                Controls.Input("controls", optional=True, tooltip="The controls to apply."),
                References.Input("references", optional=True, tooltip="Reference images (IP-Adapter)."),
                Loras.Input("loras", optional=True, tooltip="LoRAs to apply."),
                Scheduler.Input(
                    "scheduler", optional=True, tooltip="The scheduler. Not connected: the target's default."
                ),
                io.Image.Input("init_image", optional=True, tooltip="Image to start from instead of noise."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Inpainting: the white area of the mask is redrawn, the rest of init_image is kept.",
                ),
                io.String.Input(
                    "vae",
                    default="",
                    optional=True,
                    tooltip="File name or id of another VAE. Empty: use the model's own VAE.",
                ),
                io.Boolean.Input(
                    "upscale", default=False, optional=True, tooltip="Enlarge the result, if the target supports it."
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
