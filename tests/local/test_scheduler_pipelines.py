"""Every scheduler inside diffusers' own pipelines, whose network is replaced by one that knows the data exactly.

So not only that it runs is tested, but that the pipeline hands it what it needs: the noise of image-to-image at the
right level, the blending of inpainting at the level the step went to, the generator.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.schedulers.factory import make_inversion, make_scheduler, scheduler_noise_from
from controlstack.tests.local.test_schedulers import (
    FLOW_SAMPLERS,
    FLUX,
    MEAN,
    SAMPLERS,
    SD15,
    SPREAD,
    assert_is_the_data,
    exact_flow,
    exact_network,
)
from torch import Tensor

pytestmark = pytest.mark.slow

SIDE = 256  # pixels; 32 x 32 latents of 4 channels are 4096 numbers


class ExactUNet(diffusers.UNet2DConditionModel):
    """Answers as `exact_network`; only the configuration of the small UNet it is built as is used."""

    scheduler: Any
    calls = 0

    def forward(self, sample: Tensor, timestep: Any, **_: Any) -> Any:  # type: ignore[override]
        self.calls += 1
        answer = exact_network(self.scheduler, sample.double(), float(timestep)).to(sample.dtype)
        return (answer,)


class ExactTransformer(diffusers.FluxTransformer2DModel):
    def forward(self, hidden_states: Tensor, timestep: Tensor, **_: Any) -> Any:  # type: ignore[override]
        return (exact_flow(hidden_states.double(), float(timestep[0])).to(hidden_states.dtype),)


def unet(**options: Any) -> ExactUNet:
    return ExactUNet(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=2,
        **options,
    )


class DataVAE(diffusers.AutoencoderKL):
    """Encodes every image as `data`."""

    def encode(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        return SimpleNamespace(latents=data(self.config["latent_channels"]))


def vae(channels: int) -> DataVAE:
    return DataVAE(
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


UNETS = {
    "SD": unet(),
    "XL": unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + 16
    ),
}
VAE, FLUX_VAE = vae(4), vae(16)
TRANSFORMER = ExactTransformer(
    in_channels=64,
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=8,
    pooled_projection_dim=8,
    axes_dims_rope=(4, 4, 8),
)
KINDS = {
    ("SD", "text"): "StableDiffusionPipeline",
    ("SD", "image"): "StableDiffusionImg2ImgPipeline",
    ("SD", "inpaint"): "StableDiffusionInpaintPipeline",
    ("XL", "text"): "StableDiffusionXLPipeline",
    ("XL", "image"): "StableDiffusionXLImg2ImgPipeline",
    ("XL", "inpaint"): "StableDiffusionXLInpaintPipeline",
    ("FLUX", "text"): "FluxPipeline",
    ("FLUX", "image"): "FluxImg2ImgPipeline",
    ("FLUX", "inpaint"): "FluxInpaintPipeline",
}


def data(channels: int, seed: int = 5) -> Tensor:
    """Latents of an image, drawn from the data."""
    generator = torch.Generator().manual_seed(seed)
    return MEAN + SPREAD * torch.randn(1, channels, SIDE // 8, SIDE // 8, generator=generator)


def pipeline_of(family: str, task: str, scheduler: Any) -> Any:
    kind = getattr(diffusers, KINDS[family, task])
    none = dict.fromkeys(["tokenizer", "text_encoder"])
    if family == "SD":
        parts = {"unet": UNETS["SD"], "vae": VAE, "safety_checker": None, "feature_extractor": None, **none}
        parts["requires_safety_checker"] = False
    elif family == "XL":
        parts = {"unet": UNETS["XL"], "vae": VAE, "tokenizer_2": None, "text_encoder_2": None, **none}
        parts["add_watermarker"] = False
    else:
        parts = {"transformer": TRANSFORMER, "vae": FLUX_VAE, "tokenizer_2": None, "text_encoder_2": None, **none}
    if family != "FLUX":
        parts["unet"].scheduler, parts["unet"].calls = scheduler, 0
    pipeline = kind(scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(family: str, task: str, scheduler: Any, steps: int, seed: int = 0, **options: Any) -> Tensor:
    """The latents of one generation, with guidance where the family has it."""
    words = torch.zeros(1, 2, 8)
    inputs: dict[str, Any] = {"prompt_embeds": words, "num_inference_steps": steps, "output_type": "latent"}
    if family != "FLUX":
        inputs |= {"negative_prompt_embeds": words, "guidance_scale": 5.0}
    if family != "SD":
        inputs |= {"pooled_prompt_embeds": torch.zeros(1, 16 if family == "XL" else 8)}
    if family == "XL":
        inputs |= {"negative_pooled_prompt_embeds": torch.zeros(1, 16)}
    if task == "text" or family == "FLUX":
        inputs |= {"width": SIDE, "height": SIDE}
    if task != "text":
        inputs |= {"image": torch.zeros(1, 3, SIDE, SIDE), "strength": 0.6}
    if task == "inpaint":
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., : SIDE // 2] = 1
        inputs |= {"mask_image": mask, "width": SIDE, "height": SIDE}
    generator = torch.Generator().manual_seed(seed)
    with scheduler_noise_from(scheduler, [generator]):
        return pipeline_of(family, task, scheduler)(**(inputs | options), generator=generator).images


def make(name: SchedulerName, family: str) -> Any:
    return make_scheduler(SchedulerChoice(name), FLUX if family == "FLUX" else SD15)


@pytest.mark.parametrize("steps", [21, 31])
@pytest.mark.parametrize("family", ["SD", "XL"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_text_to_image_gives_the_data(name: SchedulerName, family: str, steps: int) -> None:
    assert_is_the_data(run(family, "text", make(name, family), steps), name)


@pytest.mark.parametrize("family", ["SD", "XL"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_image_to_image_starts_at_the_right_noise(name: SchedulerName, family: str) -> None:
    assert_is_the_data(run(family, "image", make(name, family), 31), name)


@pytest.mark.parametrize("family", ["SD", "XL"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_inpainting_keeps_what_is_not_masked(name: SchedulerName, family: str) -> None:
    result = run(family, "inpaint", make(name, family), 31)
    half = SIDE // 16
    assert torch.allclose(result[..., half:], data(4)[..., half:], atol=0.02)
    assert_is_the_data(result[..., :half], name)


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_the_flow_counterparts_run_the_tasks_of_flux(name: SchedulerName, task: str) -> None:
    assert_is_the_data(run("FLUX", task, make(name, "FLUX"), 21), name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_alone_decides(name: SchedulerName) -> None:
    torch.manual_seed(1)
    first = run("SD", "image", make(name, "SD"), 6, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, run("SD", "image", make(name, "SD"), 6, seed=3))
    assert not torch.equal(first, run("SD", "image", make(name, "SD"), 6, seed=4))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_of_a_batch_can_be_made_alone(name: SchedulerName) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    words = torch.zeros(2, 2, 8)
    both = pipeline_of("SD", "text", make(name, "SD"))(
        prompt_embeds=words, negative_prompt_embeds=words, num_inference_steps=6, output_type="latent",
        width=SIDE, height=SIDE, generator=generators,
    ).images  # fmt: skip
    assert torch.allclose(both[1:], run("SD", "text", make(name, "SD"), 6, seed=8, guidance_scale=7.5), atol=1e-4)


@pytest.mark.parametrize(("denoise", "calls"), [(1.0, 31), (0.5, 15), (0.01, 1)])
@pytest.mark.parametrize("family", ["SD", "XL"])
def test_inversion_and_sampling_give_the_image_back(family: str, denoise: float, calls: int) -> None:
    inversion = make_inversion(SD15, denoise)
    start = data(4)
    noise = run(family, "text", inversion.inverse, 31, latents=start, guidance_scale=1.0)
    assert UNETS[family].calls == calls
    again = run(family, "text", inversion.forward, 31, latents=noise, guidance_scale=1.0)
    assert UNETS[family].calls == calls
    assert (again - start).square().mean().sqrt() < 0.2 * SPREAD
    if denoise == 1.0:
        assert noise.mean().item() == pytest.approx(0, abs=0.2)
        assert noise.std().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_inversion_works_with_every_timestep_spacing(spacing: str) -> None:
    inversion = make_inversion({**SD15, "timestep_spacing": spacing}, 1.0)
    for scheduler in (inversion.inverse, inversion.forward):
        scheduler.set_timesteps(21)
    assert torch.equal(inversion.inverse.timesteps, inversion.forward.timesteps.flip(0))
