"""Scheduler names become diffusers schedulers that fit the model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.capabilities import Calls
from ..core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName

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
    SchedulerName.DPM_MULTISTEP: frozenset(AlgorithmType),
    SchedulerName.DPM_SINGLESTEP: frozenset(AlgorithmType) - {AlgorithmType.SDE_DPMSOLVER},
}
# Nothing is missing on models that predict noise or v. DDIMInverse is not one scheduler but two runs: `make_inversion`.
MISSING: Mapping[SchedulerName, str] = {}

FLOW_ALGORITHM_TYPES: Mapping[SchedulerName, frozenset[AlgorithmType]] = {
    SchedulerName.DPM_MULTISTEP: frozenset({AlgorithmType.DPMSOLVER_PP, AlgorithmType.SDE_DPMSOLVER_PP}),
    SchedulerName.DPM_SINGLESTEP: frozenset({AlgorithmType.DPMSOLVER_PP}),
}
FLOW_MISSING: Mapping[SchedulerName, str] = {
    SchedulerName.DDIM_INVERSE: "it inverts the noise schedule of SD models, which flow-matching models do not have",
}

# Who calls the network otherwise than once a step: PNDM takes its second step twice, the others correct each step by a
# second call, but for the last one, except ScoreSdeVe.
_CORRECTED = Calls(per_step=2, extra=-1)
CALLS: Mapping[SchedulerName, Calls] = {
    SchedulerName.PNDM: Calls(extra=1),
    SchedulerName.HEUN: _CORRECTED,
    SchedulerName.KDPM2: _CORRECTED,
    SchedulerName.KDPM2_ANCESTRAL: _CORRECTED,
    SchedulerName.KARRAS_VE: _CORRECTED,
    SchedulerName.SCORE_SDE_VE: Calls(per_step=2),
}

# Steps that a method wants before its pictures are as good as DPMSolverMultistep's at 21: with fewer, methods that
# extrapolate four steps leave spots and those that add noise leave some of it (measured, tests/local).
WANTED_STEPS: Mapping[SchedulerName, int] = {
    SchedulerName.PNDM: 50,
    SchedulerName.LMS: 50,
    SchedulerName.IPNDM: 50,
    SchedulerName.SCORE_SDE_VE: 50,
    SchedulerName.KARRAS_VE: 31,
    SchedulerName.KDPM2_ANCESTRAL: 31,
}
# What else a user should know before choosing; shown on the node.
NOTES: Mapping[SchedulerName, str] = {
    **{name: f"wants about {steps} steps" for name, steps in WANTED_STEPS.items()},
    SchedulerName.LCM: "for LCM models and LCM LoRAs at 4 to 8 steps; on others colours are lost",
    SchedulerName.DDIM_INVERSE: "turns init_image into noise and that into the new picture, so it needs init_image",
}

# Names whose diffusers class cannot run a latent diffusion model: module here and class in it.
_ADAPTERS: Mapping[SchedulerName, tuple[str, str]] = {
    SchedulerName.IPNDM: ("scheduling_ipndm", "IPNDMLatentScheduler"),
    SchedulerName.KARRAS_VE: ("scheduling_karras_ve", "KarrasVeLatentScheduler"),
    SchedulerName.SCORE_SDE_VE: ("scheduling_score_sde_ve", "ScoreSdeVeLatentScheduler"),
}
# Counterparts for flow-matching models: the same method where there is one, else the nearest of its kind. DDIM is
# Euler's method there. DEIS is not accurate in diffusers' flow mode, UniPC is of the same family and is.
_FLOW: Mapping[SchedulerName, str] = {
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
FLOW_CALLS: Mapping[SchedulerName, Calls] = {name: _CORRECTED for name, kind in _FLOW.items() if "Heun" in kind}

# Left to the defaults of some classes, these clamp latents to -1..1 or move the last step: both are for pixel models.
_LATENT_MODEL = {"clip_sample": False, "set_alpha_to_one": False, "thresholding": False, "skip_prk_steps": True}
# Their steps are all of one whole length, 1000 // steps, whatever the distance of their timesteps.
_EVEN_STEPS = frozenset({SchedulerName.DDIM, SchedulerName.IPNDM})
_FLOW_SOLVER = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@dataclass(frozen=True)
class Inversion:
    """Two runs: `inverse` turns the latents of a picture into noise, `forward` that noise into the result."""

    inverse: SchedulerMixin
    forward: SchedulerMixin


def make_scheduler(choice: SchedulerChoice, model_config: Mapping[str, Any]) -> SchedulerMixin:
    """A fresh scheduler for one generation.

    `model_config` is the content of the model's scheduler_config.json, whose noise schedule is kept. A choice without a
    name takes the class named there. For a flow-matching model the counterpart is made: the class of the result says
    which. The choice must have passed validation, and its name must not be DDIM_INVERSE.
    """
    import diffusers

    if str(model_config["_class_name"]).startswith("FlowMatch"):
        return _make_flow_scheduler(choice, model_config)
    if choice.name is not None and choice.name in _ADAPTERS:
        kind = _own(*_ADAPTERS[choice.name])
    else:
        kind = getattr(diffusers, choice.name.value if choice.name else model_config["_class_name"])
    config = _evenly_spaced(model_config) if choice.name in _EVEN_STEPS else model_config
    return _make(kind, config, {**_LATENT_MODEL, **_options(choice)})


def make_inversion(model_config: Mapping[str, Any], denoise: float) -> Inversion:
    """DDIM inversion of an initial image, followed by DDIM; `denoise` (0..1) is the share of the way gone.

    Both take the same number of steps. The inverse run has no guidance (scale 1) and an empty prompt: what the picture
    shows is not known. Latents enter and leave both unscaled, as DDIM has them.
    """
    config = _evenly_spaced(model_config)
    kinds = ("PartialDDIMInverseScheduler", "PartialDDIMScheduler")
    runs = [_make(_own("scheduling_ddim_inverse", kind), config, _LATENT_MODEL) for kind in kinds]
    for run in runs:
        run.share = denoise
    return Inversion(*runs)


@contextmanager
def noise_drawn_from(scheduler: Any, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """While this lasts, a scheduler that adds noise draws it from these, one for each picture of the batch.

    FLUX's pipelines hand their generators to no scheduler, and the noise would come from torch's global state.
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

    if choice.name is None:
        return _make(getattr(diffusers, str(model_config["_class_name"])), model_config, _options(choice))
    name = _FLOW[choice.name]
    kind = getattr(diffusers, name, None) or _own("scheduling_flow", name)
    if not hasattr(kind, "schedule"):
        return _make(kind, model_config, _options(choice))
    options = _options(choice)
    karras = options.pop("use_karras_sigmas", False)
    solver = _make(kind, {}, {**_FLOW_SOLVER, **options})
    own = getattr(diffusers, str(model_config["_class_name"]))
    solver.schedule = _make(own, model_config, {"use_karras_sigmas": True} if karras else {})
    return solver


def _evenly_spaced(model_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """With "linspace" the timesteps lie up to three further apart than such steps go; "trailing" begins at the same."""
    linspace = model_config.get("timestep_spacing", "leading") == "linspace"
    return {**model_config, "timestep_spacing": "trailing"} if linspace else model_config


def _options(choice: SchedulerChoice) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if choice.use_karras_sigmas:
        options["use_karras_sigmas"] = True
    if choice.algorithm_type is not None:
        options["algorithm_type"] = choice.algorithm_type.value
        if choice.algorithm_type in (AlgorithmType.DPMSOLVER, AlgorithmType.SDE_DPMSOLVER):
            # These two divide by the last sigma, which is 0 otherwise.
            options["final_sigmas_type"] = "sigma_min"
    return options


def _own(module: str, kind: str) -> Any:
    return getattr(importlib.import_module(f".{module}", __package__), kind)


def _make(kind: Any, model_config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in {**model_config, **options}.items() if key in accepted})
