"""Makes the diffusers scheduler for a scheduler name and a model."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ...core.capabilities import Calls
from ...core.problems import ProblemKind
from ...core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName

if TYPE_CHECKING:
    import torch
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

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
    SchedulerName.DPM_MULTISTEP: frozenset(
        {
            AlgorithmType.DPMSOLVER,
            AlgorithmType.DPMSOLVER_PP,
            AlgorithmType.SDE_DPMSOLVER,
            AlgorithmType.SDE_DPMSOLVER_PP,
        }
    ),
    SchedulerName.DPM_SINGLESTEP: frozenset(
        {AlgorithmType.DPMSOLVER, AlgorithmType.DPMSOLVER_PP, AlgorithmType.SDE_DPMSOLVER_PP}
    ),
}
# The schedulers of models that predict epsilon or v. DDIM_INVERSE is two runs with a scheduler each: see
# `make_inversion`. Those of flow-matching models are in FLOW_CLASSES.
NAMES = frozenset(
    {
        SchedulerName.DDIM,
        SchedulerName.DDIM_INVERSE,
        SchedulerName.DDPM,
        SchedulerName.DEIS,
        SchedulerName.DPM_MULTISTEP,
        SchedulerName.DPM_SINGLESTEP,
        SchedulerName.EULER,
        SchedulerName.EULER_ANCESTRAL,
        SchedulerName.HEUN,
        SchedulerName.IPNDM,
        SchedulerName.KARRAS_VE,
        SchedulerName.KDPM2,
        SchedulerName.KDPM2_ANCESTRAL,
        SchedulerName.LCM,
        SchedulerName.LMS,
        SchedulerName.PNDM,
        SchedulerName.SCORE_SDE_VE,
        SchedulerName.UNIPC,
    }
)

FLOW_ALGORITHM_TYPES: Mapping[SchedulerName, frozenset[AlgorithmType]] = {
    SchedulerName.DPM_MULTISTEP: frozenset({AlgorithmType.DPMSOLVER_PP, AlgorithmType.SDE_DPMSOLVER_PP}),
    SchedulerName.DPM_SINGLESTEP: frozenset({AlgorithmType.DPMSOLVER_PP}),
}
INVERSION_NEEDS_NOISE_SCHEDULE = ProblemKind(
    "inversion_needs_noise_schedule",
    "{target} does not support {value}, which inverts the noise schedule of SD models; a flow-matching model has none. "
    "Set {field} to default or to one of {choices}.",
)
# Why a flow-matching model does not run a scheduler.
FLOW_UNSUPPORTED: Mapping[SchedulerName, ProblemKind] = {SchedulerName.DDIM_INVERSE: INVERSION_NEEDS_NOISE_SCHEDULE}

# Schedulers that do not call the network once a step. PNDM takes its second step twice. Predictor-corrector methods
# call it a second time in every step but the last; ScoreSdeVe in every step.
_PREDICTOR_CORRECTOR = Calls(per_step=2, extra=-1)
CALLS: Mapping[SchedulerName, Calls] = {
    SchedulerName.PNDM: Calls(extra=1),
    SchedulerName.HEUN: _PREDICTOR_CORRECTOR,
    SchedulerName.KDPM2: _PREDICTOR_CORRECTOR,
    SchedulerName.KDPM2_ANCESTRAL: _PREDICTOR_CORRECTOR,
    SchedulerName.KARRAS_VE: _PREDICTOR_CORRECTOR,
    SchedulerName.SCORE_SDE_VE: Calls(per_step=2),
}

# Steps that a scheduler needs for images as good as DPMSolverMultistep's with 21. With fewer, the methods that
# extrapolate from four steps leave spots, and those that add noise leave some of it (measured in tests/local).
RECOMMENDED_STEPS: Mapping[SchedulerName, int] = {
    SchedulerName.PNDM: 50,
    SchedulerName.LMS: 50,
    SchedulerName.IPNDM: 50,
    SchedulerName.SCORE_SDE_VE: 50,
    SchedulerName.KARRAS_VE: 31,
    SchedulerName.KDPM2_ANCESTRAL: 31,
}
# What a scheduler needs for a good image, as shown in the tooltip of the Scheduler node.
NOTES: Mapping[SchedulerName, str] = {
    **{name: f"about {steps} steps" for name, steps in RECOMMENDED_STEPS.items()},
    SchedulerName.LCM: "an LCM model or LCM LoRA, and 4 to 8 steps",
    SchedulerName.DDIM_INVERSE: "an init_image, which it inverts to noise",
}

# Schedulers whose diffusers class cannot run a latent diffusion model: the class in this folder that replaces it.
_REPLACEMENTS: Mapping[SchedulerName, str] = {
    SchedulerName.IPNDM: "IPNDMLatentScheduler",
    SchedulerName.KARRAS_VE: "KarrasVeLatentScheduler",
    SchedulerName.SCORE_SDE_VE: "ScoreSdeVeLatentScheduler",
}
# Schedulers for flow-matching models: the same method where there is one, otherwise the most similar. On these models
# DDIM is Euler's method. diffusers' DEIS is inaccurate in flow mode, so UniPC, of the same family, replaces it.
FLOW_CLASSES: Mapping[SchedulerName, str] = {
    SchedulerName.EULER: "FlowMatchEulerDiscreteScheduler",
    SchedulerName.DDIM: "FlowMatchEulerDiscreteScheduler",
    SchedulerName.LCM: "FlowMatchLCMScheduler",
    SchedulerName.PNDM: "FlowLMSScheduler",
    SchedulerName.LMS: "FlowLMSScheduler",
    SchedulerName.IPNDM: "FlowLMSScheduler",
    SchedulerName.EULER_ANCESTRAL: "FlowEulerAncestralScheduler",
    SchedulerName.DDPM: "FlowEulerAncestralScheduler",
    SchedulerName.KDPM2_ANCESTRAL: "FlowEulerAncestralScheduler",
    SchedulerName.SCORE_SDE_VE: "FlowEulerAncestralScheduler",
    SchedulerName.HEUN: "FlowHeunScheduler",
    SchedulerName.KDPM2: "FlowHeunScheduler",
    SchedulerName.KARRAS_VE: "FlowHeunScheduler",
    SchedulerName.DPM_MULTISTEP: "FlowDPMSolverMultistepScheduler",
    SchedulerName.DPM_SINGLESTEP: "FlowDPMSolverSinglestepScheduler",
    SchedulerName.UNIPC: "FlowUniPCMultistepScheduler",
    SchedulerName.DEIS: "FlowUniPCMultistepScheduler",
}
FLOW_CALLS: Mapping[SchedulerName, Calls] = {
    name: _PREDICTOR_CORRECTOR for name, class_name in FLOW_CLASSES.items() if class_name == "FlowHeunScheduler"
}

# The defaults of some classes are for pixel models: they clamp the sample to -1..1, or change the last step.
_LATENT_MODEL = {"clip_sample": False, "set_alpha_to_one": False, "thresholding": False, "skip_prk_steps": True}
# These step by 1000 // steps timesteps, whatever the spacing of the schedule.
_CONSTANT_STRIDE = frozenset({SchedulerName.DDIM, SchedulerName.IPNDM})
_FLOW_SOLVER_CONFIG = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@dataclass(frozen=True)
class Inversion:
    """The schedulers of two runs: `inverse` turns the latents of an image into noise, `forward` samples from it."""

    inverse: SchedulerMixin
    forward: SchedulerMixin


def make_scheduler(choice: SchedulerChoice, model_config: Mapping[str, Any]) -> SchedulerMixin:
    """A new scheduler for one generation.

    `model_config` is the content of the model's scheduler_config.json. Its noise schedule is kept, and its class is
    used when the choice has no name. A flow-matching model gets the scheduler of `FLOW_CLASSES`; the class of the
    result tells which. The choice must be valid for the model, and must not be DDIM_INVERSE.
    """
    import diffusers

    model_class = str(model_config["_class_name"])
    if model_class.startswith("FlowMatch"):
        return _make_flow_scheduler(choice, model_config)
    if choice.name is not None and choice.name in _REPLACEMENTS:
        scheduler_class = _pack_classes()[_REPLACEMENTS[choice.name]]
    else:
        scheduler_class = getattr(diffusers, choice.name.value if choice.name else model_class)
    config = _with_constant_stride(model_config) if choice.name in _CONSTANT_STRIDE else model_config
    return _make(scheduler_class, config, {**_LATENT_MODEL, **_choice_config(choice)})


def make_inversion(model_config: Mapping[str, Any], denoise: float) -> Inversion:
    """DDIM inversion of an initial image, then DDIM sampling; `denoise` (0..1) is the share of the schedule used.

    Both runs take the same number of steps. The inverse run must have guidance scale 1 and an empty prompt, because
    what the image shows is not known. Latents go in and out of both unscaled, as with DDIM.
    """
    from .ddim_inverse import PartialDDIMInverseScheduler, PartialDDIMScheduler

    config = _with_constant_stride(model_config)
    inverse = _make(PartialDDIMInverseScheduler, config, _LATENT_MODEL)
    forward = _make(PartialDDIMScheduler, config, _LATENT_MODEL)
    inverse.denoise = forward.denoise = denoise
    return Inversion(inverse, forward)


@contextmanager
def scheduler_noise_from(scheduler: Any, generators: Sequence[torch.Generator]) -> Generator[None]:
    """Within this context the scheduler draws its noise from `generators`, one for each image of the batch.

    FLUX's pipelines do not pass their generators to the scheduler, whose noise would come from torch's global state.
    """
    step = scheduler.step
    try:
        if "generator" in inspect.signature(step).parameters:
            scheduler.step = partial(step, generator=generators)
        yield
    finally:
        vars(scheduler).pop("step", None)


def _make_flow_scheduler(choice: SchedulerChoice, model_config: Mapping[str, Any]) -> SchedulerMixin:
    import diffusers

    model_class = getattr(diffusers, str(model_config["_class_name"]))
    config = _choice_config(choice)
    if choice.name is None:
        return _make(model_class, model_config, config)
    class_name = FLOW_CLASSES[choice.name]
    scheduler_class = _pack_classes().get(class_name) or getattr(diffusers, class_name)
    if not hasattr(scheduler_class, "schedule"):
        return _make(scheduler_class, model_config, config)
    karras = {"use_karras_sigmas": True} if config.pop("use_karras_sigmas", False) else {}
    solver = _make(scheduler_class, {}, {**_FLOW_SOLVER_CONFIG, **config})
    solver.schedule = _make(model_class, model_config, karras)
    return solver


def _with_constant_stride(model_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration for a scheduler of `_CONSTANT_STRIDE`.

    With "linspace" spacing, timesteps are up to three further apart than such a scheduler steps. "trailing" starts at
    the same timestep and has its stride.
    """
    linspace = model_config.get("timestep_spacing", "leading") == "linspace"
    return {**model_config, "timestep_spacing": "trailing"} if linspace else model_config


def _choice_config(choice: SchedulerChoice) -> dict[str, Any]:
    """The user's settings as entries of a scheduler's configuration."""
    config: dict[str, Any] = {}
    if choice.use_karras_sigmas:
        config["use_karras_sigmas"] = True
    if choice.algorithm_type is not None:
        config["algorithm_type"] = choice.algorithm_type.value
        if choice.algorithm_type in (AlgorithmType.DPMSOLVER, AlgorithmType.SDE_DPMSOLVER):
            # These two divide by the last sigma, which is 0 by default.
            config["final_sigmas_type"] = "sigma_min"
    return config


def _pack_classes() -> dict[str, Any]:
    """The scheduler classes of this folder, by name. Imported when needed, since their base classes need diffusers."""
    from .flow_ancestral import FlowEulerAncestralScheduler
    from .flow_heun import FlowHeunScheduler
    from .flow_lms import FlowLMSScheduler
    from .flow_solvers import (
        FlowDPMSolverMultistepScheduler,
        FlowDPMSolverSinglestepScheduler,
        FlowUniPCMultistepScheduler,
    )
    from .ipndm import IPNDMLatentScheduler
    from .karras_ve import KarrasVeLatentScheduler
    from .score_sde_ve import ScoreSdeVeLatentScheduler

    classes = (
        FlowDPMSolverMultistepScheduler,
        FlowDPMSolverSinglestepScheduler,
        FlowEulerAncestralScheduler,
        FlowHeunScheduler,
        FlowLMSScheduler,
        FlowUniPCMultistepScheduler,
        IPNDMLatentScheduler,
        KarrasVeLatentScheduler,
        ScoreSdeVeLatentScheduler,
    )
    return {scheduler_class.__name__: scheduler_class for scheduler_class in classes}


def _make(scheduler_class: Any, model_config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A scheduler with the entries of both that its class accepts; `options` win."""
    accepted = inspect.signature(scheduler_class.__init__).parameters
    config = {**model_config, **options}
    return scheduler_class(**{name: value for name, value in config.items() if name in accepted})
