"""Scheduler names become diffusers schedulers that fit the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

# Why diffusers cannot run these on a latent diffusion model as they are.
MISSING: Mapping[SchedulerName, str] = {
    SchedulerName.DDIM_INVERSE: "it turns a picture into noise and needs the image-to-image task, missing here",
    SchedulerName.IPNDM: "diffusers' class ignores the noise schedule of the model and needs an adapter, missing here",
    SchedulerName.KARRAS_VE: "diffusers' class has another step interface and needs an adapter, missing here",
    SchedulerName.SCORE_SDE_VE: "diffusers' class has another step interface and needs an adapter, missing here",
}

_DPM = (SchedulerName.DPM_MULTISTEP, SchedulerName.DPM_SINGLESTEP)
KARRAS_SIGMAS = frozenset(
    {
        SchedulerName.LMS,
        SchedulerName.EULER,
        SchedulerName.HEUN,
        SchedulerName.KDPM2,
        SchedulerName.KDPM2_ANCESTRAL,
        SchedulerName.UNIPC,
        SchedulerName.DEIS,
        *_DPM,
    }
)
ALGORITHM_TYPES: Mapping[SchedulerName, frozenset[AlgorithmType]] = {
    SchedulerName.DPM_MULTISTEP: frozenset(AlgorithmType),
    SchedulerName.DPM_SINGLESTEP: frozenset(AlgorithmType) - {AlgorithmType.SDE_DPMSOLVER},
}

# Left to the defaults of some classes, these clamp latents to -1..1 or move the last step: both are for pixel models.
_LATENT_MODEL = {"clip_sample": False, "set_alpha_to_one": False, "thresholding": False, "skip_prk_steps": True}


def make_scheduler(choice: SchedulerChoice, model_config: Mapping[str, Any]) -> SchedulerMixin:
    """A fresh scheduler for one generation.

    `model_config` is the content of the model's scheduler_config.json, whose noise schedule is kept. A choice without a
    name takes the class named there. The choice must have passed validation.
    """
    import diffusers

    name = choice.name.value if choice.name else model_config["_class_name"]
    kind = getattr(diffusers, name)
    options: dict[str, Any] = dict(_LATENT_MODEL)
    if choice.use_karras_sigmas:
        options["use_karras_sigmas"] = True
    if choice.algorithm_type is not None:
        options["algorithm_type"] = choice.algorithm_type.value
        if choice.algorithm_type in (AlgorithmType.DPMSOLVER, AlgorithmType.SDE_DPMSOLVER):
            # These two divide by the last sigma, which is 0 otherwise.
            options["final_sigmas_type"] = "sigma_min"
    accepted = inspect.signature(kind.__init__).parameters
    config = {key: value for key, value in {**model_config, **options}.items() if key in accepted}
    return kind(**config)
