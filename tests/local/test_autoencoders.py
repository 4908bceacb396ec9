"""SDXL's VAE overflows in fp16, so it computes in fp32 wherever it is called, and has its own dtype afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.request import GenerationRequest
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inputs import init_latents
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.preview import latent_preview
from controlstack.local.engine.run import Run
from controlstack.local.memory import autoencoders
from controlstack.local.memory.autoencoders import tile_side
from controlstack.local.memory.offload import decoding_bytes
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.tiny_models import tiny_model
from torch import Tensor

pytestmark = pytest.mark.slow

# A tiny SDXL VAE. Its first layers give numbers that overflow in fp16, and the norms after them scale these down again.
FAR = 2e5
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=2, guidance_scale=1)
BEGUN = replace(REQUEST, init_image=random_image(3))
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


def test_without_upcasting_the_vae_of_sdxl_overflows_in_fp16() -> None:
    vae = half_model().components["vae"]
    with torch.no_grad():
        assert not vae.decode(torch.ones(1, 4, 2, 2).half()).sample.isfinite().all()
        assert not vae.encode(torch.ones(1, 3, 16, 16).half()).latent_dist.mean.isfinite().all()


def test_the_latents_of_an_initial_image_are_finite_and_fit_the_denoiser() -> None:
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
    shown = latent_preview(model, vae)(latents)
    assert shown.float().std() > 0, "a decoder out of its range gives one gray"
    theirs = latent_preview(exact, exact.components["vae"])(latents)
    assert (shown.int() - theirs.int()).abs().max() <= 2
    assert vae.dtype == torch.float16


@pytest.mark.parametrize(
    "request_",
    [REQUEST, BEGUN, INVERTED, replace(REQUEST, upscale=True)],
    ids=["text", "init_image", "inverted", "upscaled"],
)
def test_every_task_gives_finite_images(request_: GenerationRequest) -> None:
    model = half_model()
    previews: list[Tensor] = []
    result = generate(model, request_, lambda step: previews.append(step.preview()))
    assert result.images.std() > 0
    assert previews[-1].float().std() > 0
    assert model.components["vae"].dtype == torch.float16


def test_bf16_is_decoded_in_bf16_and_encoded_in_fp32_like_the_pipelines() -> None:
    model = half_model(torch.bfloat16)
    vae = model.components["vae"]
    seen: list[torch.dtype] = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    init_latents(model, BEGUN)
    latent_preview(model, vae)
    ours = list(seen)
    seen.clear()
    generate(model, BEGUN)  # both in the pipeline
    assert ours == seen == [torch.float32, torch.bfloat16]


def test_a_vae_without_force_upcast_computes_in_its_own_dtype() -> None:
    model = half_model(upcasts=False, far=1)
    vae = model.components["vae"]
    seen: list[torch.dtype] = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    init_latents(model, BEGUN)
    latent_preview(model, vae)
    assert seen == [torch.float16] * 2


GIB = 2**30


@pytest.mark.parametrize(
    ("side", "dtype", "free", "tile"),
    [
        (1024, torch.float32, 12 * GIB, None),
        (1024, torch.float32, 7 * GIB, 512),  # SDXL on a card of 8 GB
        (1024, torch.float16, 7 * GIB, None),
        (2048, torch.float32, 12 * GIB, 1024),
        (2048, torch.bfloat16, 4 * GIB, 512),
        (4096, torch.float32, GIB // 2, 256),
        (256, torch.float32, 1, None),  # smaller than any tile
    ],
)
def test_tiles_are_as_large_as_the_memory_allows(side: int, dtype: torch.dtype, free: int, tile: int | None) -> None:
    assert tile_side(side, side, dtype, free) == tile
    assert tile_side(side, side // 4, dtype, free) in (tile, None)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without free memory, and tiles small enough for the images of tests."""
    monkeypatch.setattr(autoencoders, "TILES", (SIZE // 2,))
    monkeypatch.setattr(PlainMemory, "free", lambda self: 1)


@pytest.mark.usefixtures("little_memory")
def test_images_of_the_training_size_are_tiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(Family.SDXL)
    vae = model.components["vae"]
    own = vae.tile_sample_min_size, vae.tile_latent_min_size
    assert own[0] == SIZE, "without the change it would not tile them"
    calls: list[str] = []
    for name in ("_tiled_encode", "tiled_decode"):
        plain = getattr(vae, name)
        monkeypatch.setattr(vae, name, lambda *a, plain=plain, name=name, **k: calls.append(name) or plain(*a, **k))
    result = generate(model, INVERTED)
    assert calls == ["_tiled_encode", "tiled_decode"]
    assert any("tiles of 32 pixels" in note for note in result.notes)
    assert not vae.use_tiling and not vae.use_slicing
    assert (vae.tile_sample_min_size, vae.tile_latent_min_size) == own


def test_the_decoding_estimate_is_that_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a large image would make the whole model be offloaded layer by layer."""
    model = tiny_model(Family.SDXL)
    large = Run(model, replace(REQUEST, width=1024, height=1024), inventory_of(model))
    rooms = []
    for free in (12 * GIB, 7 * GIB):
        monkeypatch.setattr(PlainMemory, "free", lambda self, free=free: free)
        rooms.append(large.decoding_bytes())
    assert rooms == [decoding_bytes(1024, 1024, 4), decoding_bytes(512, 512, 4)]
    assert large.stages()[2].activation_bytes == rooms[1]


def test_images_are_decoded_one_by_one_and_the_probes_of_the_preview_at_once() -> None:
    model = tiny_model(Family.SD15)
    vae = model.components["vae"]
    batches: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda _module, inputs: batches.append(inputs[0].shape[0]))
    generate(model, replace(REQUEST, batch_size=3, steps=1))
    assert batches == [1, 1, 1]
    batches.clear()
    generate(model, replace(REQUEST, batch_size=2, steps=1), lambda step: step.preview())
    assert len(batches) == 3 and batches[1:] == [1, 1]
