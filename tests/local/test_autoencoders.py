"""SDXL's autoencoder leaves the range of fp16: wherever it is called, it computes in fp32 and is itself afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.request import GenerationRequest
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.families import Family
from controlstack.local.generate import generate
from controlstack.local.inputs import init_latents
from controlstack.local.model import LocalModel
from controlstack.tests.local.stocked import SIZE, picture
from controlstack.tests.local.tiny_models import tiny_model
from torch import Tensor

# An SDXL VAE in small: its first layers give numbers that fp16 has not, and the norms behind them bring them back.
FAR = 2e5
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=2, guidance_scale=1)
BEGUN = replace(REQUEST, init_image=picture(3))
INVERTED = replace(BEGUN, scheduler=SchedulerChoice(SchedulerName.DDIM_INVERSE))


def half_model(dtype: torch.dtype = torch.float16, upcasts: bool = True, far: float = FAR) -> LocalModel:
    model = replace(tiny_model(Family.SDXL), dtype=dtype)
    vae = model.components["vae"]
    vae.register_to_config(force_upcast=upcasts)
    with torch.no_grad():
        for part in (vae.encoder, vae.decoder):
            part.conv_in.weight.mul_(far)
    for part in model.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype)
    return model


def test_without_the_rule_the_numbers_are_out_of_range() -> None:
    vae = half_model().components["vae"]
    with torch.no_grad():
        assert not vae.decode(torch.ones(1, 4, 2, 2).half()).sample.isfinite().all()
        assert not vae.encode(torch.ones(1, 3, 16, 16).half()).latent_dist.mean.isfinite().all()


def test_the_latents_of_a_first_picture_are_finite_and_fit_the_denoiser() -> None:
    model = half_model()
    latents = init_latents(model, BEGUN)
    assert latents.dtype == torch.float16
    assert latents.isfinite().all() and latents.std() > 0
    exact = init_latents(half_model(torch.float32), BEGUN)
    assert (latents - exact).abs().max() < 0.02 * exact.abs().max()
    assert model.components["vae"].dtype == torch.float16


def test_the_preview_shows_what_the_decoder_makes() -> None:
    model = half_model()
    vae = model.components["vae"]
    exact = half_model(torch.float32)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    shown = model.preview(vae)(latents)
    assert shown.float().std() > 0, "a decoder out of its range gives one gray"
    theirs = exact.preview(exact.components["vae"])(latents)
    assert (shown.int() - theirs.int()).abs().max() <= 2
    assert vae.dtype == torch.float16


@pytest.mark.parametrize("request_", [REQUEST, BEGUN, INVERTED, replace(REQUEST, upscale=True)], ids=str)
def test_every_way_to_a_picture_stays_in_range(request_: GenerationRequest) -> None:
    model = half_model()
    previews: list[Tensor] = []
    result = generate(model, request_, lambda step: previews.append(step.preview()))
    assert result.images.std() > 0
    assert previews[-1].float().std() > 0
    assert model.components["vae"].dtype == torch.float16


def test_bf16_is_decoded_as_it_is_and_encoded_in_fp32_as_the_pipelines_do() -> None:
    model = half_model(torch.bfloat16)
    vae = model.components["vae"]
    seen: list[torch.dtype] = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    init_latents(model, BEGUN)
    model.preview(vae)
    ours = list(seen)
    seen.clear()
    generate(model, BEGUN)  # both in the pipeline
    assert ours == seen == [torch.float32, torch.bfloat16]


def test_a_vae_that_does_not_ask_for_it_computes_in_its_own_format() -> None:
    model = half_model(upcasts=False, far=1)
    vae = model.components["vae"]
    seen: list[torch.dtype] = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    init_latents(model, BEGUN)
    model.preview(vae)
    assert seen == [torch.float16] * 2


def test_a_first_picture_too_large_for_the_memory_is_encoded_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(Family.SDXL)
    vae = model.components["vae"]
    calls: list[str] = []
    for name in ("_tiled_encode", "tiled_decode"):
        plain = getattr(vae, name)
        monkeypatch.setattr(vae, name, lambda *a, plain=plain, name=name, **k: calls.append(name) or plain(*a, **k))
    monkeypatch.setattr(PlainMemory, "free", lambda self: 1)
    generate(model, replace(INVERTED, width=2 * SIZE, height=2 * SIZE))
    assert calls == ["_tiled_encode", "tiled_decode"]
    assert not vae.use_tiling
