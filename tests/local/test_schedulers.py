"""Every scheduler name samples: exactly known data, both kinds of prediction, real pipelines of every family."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from controlstack.local.schedulers.factory import (
    ALGORITHM_TYPES,
    FLOW_ALGORITHM_TYPES,
    FLOW_UNSUPPORTED,
    KARRAS_SIGMAS,
    NAMES,
    make_scheduler,
    scheduler_noise_from,
)
from torch import Tensor

SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
FLUX = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
SCHNELL = {**FLUX, "shift": 1.0, "use_dynamic_shifting": False}

# Every number of the data is drawn from this normal distribution, for which the best network is known exactly.
MEAN, SPREAD = 0.7, 0.5
# Methods whose result has another spread than the data, whatever network they run: LCM jumps to the mean and back.
SPREADS = {SchedulerName.LCM: (0.25, 0.45)}

SAMPLERS = sorted(set(SchedulerName) - {SchedulerName.DDIM_INVERSE})
FLOW_SAMPLERS = sorted(set(SchedulerName) - set(FLOW_UNSUPPORTED))


def signal_of(scheduler: Any, timestep: float) -> float:
    """The share of data (alpha bar) at a timestep, between two of them along the logarithm of the noise level."""
    known = scheduler.alphas_cumprod.double().numpy()
    sigma = np.exp(np.interp(timestep, np.arange(len(known)), np.log(np.sqrt((1 - known) / known))))
    return float(1 / (1 + sigma**2))


def exact_network(scheduler: Any, x: Tensor, timestep: float) -> Tensor:
    """The prediction of a perfect network for the normal data."""
    signal = signal_of(scheduler, timestep)
    noise = (x - signal**0.5 * MEAN) * (1 - signal) ** 0.5 / (signal * SPREAD**2 + 1 - signal)
    if scheduler.config.prediction_type == "epsilon":
        return noise
    data = (x - (1 - signal) ** 0.5 * noise) / signal**0.5
    return signal**0.5 * noise - (1 - signal) ** 0.5 * data


def exact_flow(x: Tensor, sigma: float) -> Tensor:
    slope = (sigma - (1 - sigma) * SPREAD**2) / ((1 - sigma) ** 2 * SPREAD**2 + sigma**2)
    return slope * (x - (1 - sigma) * MEAN) - MEAN


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """The arguments of a step, as diffusers' pipelines look them up."""
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": generator} if "generator" in accepted else {}


def sample(scheduler: Any, steps: int, seed: int = 0, numbers: int = 20_000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 4, 50, numbers // 200, generator=generator) * scheduler.init_noise_sigma
    options = step_options(scheduler, generator)
    for time in scheduler.timesteps:
        output = exact_network(scheduler, scheduler.scale_model_input(x, time).double(), float(time)).float()
        x = scheduler.step(output, time, x, return_dict=False, **options)[0]
    return x


def sample_flow(scheduler: Any, steps: int, seed: int = 0) -> Tensor:
    """As diffusers' FLUX pipelines call a scheduler, for an image of 1024 x 1024."""
    generator = torch.Generator().manual_seed(seed)
    sigmas = list(np.linspace(1.0, 1 / steps, steps))
    scheduler.set_timesteps(sigmas=sigmas, mu=1.15, device="cpu")
    scheduler.set_begin_index(0)
    x = torch.randn(1, 100, 200, generator=generator)
    with scheduler_noise_from(scheduler, [generator]):
        for time in scheduler.timesteps:
            x = scheduler.step(exact_flow(x.double(), float(time) / 1000).float(), time, x, return_dict=False)[0]
    return x


def assert_is_the_data(x: Tensor, name: SchedulerName) -> None:
    low, high = SPREADS.get(name, (SPREAD - 0.12, SPREAD + 0.12))
    assert x.mean().item() == pytest.approx(MEAN, abs=0.065)
    assert low <= x.std().item() <= high


def test_every_scheduler_is_supported() -> None:
    assert set(SchedulerName) == NAMES
    assert {name for name in SchedulerName if name in FLOW_UNSUPPORTED} == {SchedulerName.DDIM_INVERSE}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [21, 31])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_samples_have_the_mean_and_spread_of_the_data(name: SchedulerName, steps: int, prediction: str) -> None:
    scheduler = make_scheduler(SchedulerChoice(name), {**SD15, "prediction_type": prediction})
    assert_is_the_data(sample(scheduler, steps), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KARRAS_SIGMAS))
def test_karras_sigmas_give_the_data_and_differ(name: SchedulerName) -> None:
    plain, karras = (make_scheduler(SchedulerChoice(name, on), SD15) for on in (False, True))
    assert_is_the_data(sample(karras, 21), name)
    plain.set_timesteps(21)
    assert not torch.equal(torch.as_tensor(plain.sigmas), torch.as_tensor(karras.sigmas))


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, kinds in ALGORITHM_TYPES.items() for k in sorted(kinds)])
def test_every_algorithm_type_gives_the_data(name: SchedulerName, kind: AlgorithmType) -> None:
    scheduler = make_scheduler(SchedulerChoice(name, algorithm_type=kind), SD15)
    assert scheduler.config["algorithm_type"] == kind.value
    assert_is_the_data(sample(scheduler, 31), name)


@pytest.mark.parametrize("model", [FLUX, SCHNELL], ids=["dev", "schnell"])
@pytest.mark.parametrize("steps", [21, 31])
@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_the_flow_counterpart_gives_the_data(name: SchedulerName, steps: int, model: dict[str, Any]) -> None:
    scheduler = make_scheduler(SchedulerChoice(name), model)
    assert "Flow" in type(scheduler).__name__
    assert_is_the_data(sample_flow(scheduler, steps), name)


@pytest.mark.parametrize("name", sorted(KARRAS_SIGMAS))
def test_karras_sigmas_give_the_data_on_a_flow_model(name: SchedulerName) -> None:
    plain, karras = (make_scheduler(SchedulerChoice(name, on), FLUX) for on in (False, True))
    assert_is_the_data(sample_flow(karras, 31), name)
    sample_flow(plain, 31)
    assert not torch.equal(plain.sigmas, karras.sigmas)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, kinds in FLOW_ALGORITHM_TYPES.items() for k in sorted(kinds)])
def test_every_algorithm_type_of_a_flow_model_gives_the_data(name: SchedulerName, kind: AlgorithmType) -> None:
    scheduler = make_scheduler(SchedulerChoice(name, algorithm_type=kind), FLUX)
    assert scheduler.config["algorithm_type"] == kind.value
    assert_is_the_data(sample_flow(scheduler, 31), name)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", [SchedulerName.DDIM, SchedulerName.IPNDM])
def test_schedulers_with_a_constant_stride_hit_their_timesteps(name: SchedulerName, spacing: str) -> None:
    scheduler = make_scheduler(SchedulerChoice(name), {**SD15, "timestep_spacing": spacing})
    scheduler.set_timesteps(21)
    distances = scheduler.timesteps[:-1] - scheduler.timesteps[1:]
    assert (distances - 1000 // 21).abs().max() <= 1
