"""The eighteen schedulers, by the names that diffusers and the services share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SchedulerName(StrEnum):
    """Documented scheduler names; each is the name of a diffusers class."""

    DDPM = "DDPMScheduler"
    DDIM = "DDIMScheduler"
    PNDM = "PNDMScheduler"
    LMS = "LMSDiscreteScheduler"
    EULER = "EulerDiscreteScheduler"
    EULER_ANCESTRAL = "EulerAncestralDiscreteScheduler"
    DPM_MULTISTEP = "DPMSolverMultistepScheduler"
    HEUN = "HeunDiscreteScheduler"
    KDPM2 = "KDPM2DiscreteScheduler"
    DPM_SINGLESTEP = "DPMSolverSinglestepScheduler"
    KDPM2_ANCESTRAL = "KDPM2AncestralDiscreteScheduler"
    UNIPC = "UniPCMultistepScheduler"
    DDIM_INVERSE = "DDIMInverseScheduler"
    DEIS = "DEISMultistepScheduler"
    IPNDM = "IPNDMScheduler"
    KARRAS_VE = "KarrasVeScheduler"
    SCORE_SDE_VE = "ScoreSdeVeScheduler"
    LCM = "LCMScheduler"


class AlgorithmType(StrEnum):
    """Variants of the DPM-Solver family (arXiv:2211.01095)."""

    DPMSOLVER = "dpmsolver"
    DPMSOLVER_PP = "dpmsolver++"
    SDE_DPMSOLVER = "sde-dpmsolver"
    SDE_DPMSOLVER_PP = "sde-dpmsolver++"


@dataclass(frozen=True)
class SchedulerChoice:
    """A scheduler and its options; every field left at its default means "as the model or service has it"."""

    name: SchedulerName | None = None
    use_karras_sigmas: bool = False
    algorithm_type: AlgorithmType | None = None
