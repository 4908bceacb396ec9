"""Single files: every tensor of a checkpoint in an original layout is loaded, in every common packing, offline."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from controlstack.core.errors import InvalidRequest, ModelNotFound, ModelUnreadable
from controlstack.core.memory import PlainMemory
from controlstack.core.request import GenerationRequest, Lora
from controlstack.local.engine.check import capabilities
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.model_cache import stamp
from controlstack.local.files.assemble import network_class
from controlstack.local.files.load import load_model
from controlstack.local.files.request_networks import autoencoder
from controlstack.local.files.single_file import tokenizers
from controlstack.local.model.family_configs import CONFIGS, family_configs
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.network_cache import NetworkCache
from controlstack.local.model.part_search import Parts
from controlstack.local.model.source import DEMO_MODEL, source_of
from controlstack.models.families import FACTS, Family
from controlstack.models.library import Library
from controlstack.tests.local.original_layouts import (
    checkpoint,
    hf_text,
    ldm_vae,
    scaled_fp8,
    stored,
)
from controlstack.tests.local.packed_files import FOLDERS, empty_library, networks, write, write_parts
from controlstack.tests.local.tiny_models import clip_text, components, scheduler, unet, vae
from controlstack.workshop.comfyui import find_comfyui
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

pytestmark = pytest.mark.slow

CPU = PlainMemory(torch.device("cpu"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return empty_library(tmp_path_factory.mktemp("models"))


@pytest.fixture
def own(library: Library, tmp_path: Path) -> Library:
    """The same with folders of this test alone."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    return Library(
        {name: (tmp_path / name,) for name in FOLDERS}, library.clip_tokenizer, library.t5_tokenizer, library.configs
    )


def load(path: Path, library: Library, dtype: torch.dtype = torch.float32, parts: Parts | None = None) -> LocalModel:
    return load_model(source_of(path, library, parts), "test", CPU, dtype, library)


def equal(a: torch.nn.Module, b: torch.nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    """Whether b holds what a does, number for number, once both are in that format."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name].to(dtype), right[name]) for name in left)


@pytest.mark.parametrize("family", FACTS)
def test_every_tensor_of_a_checkpoint_is_loaded(family: Family, own: Library) -> None:
    parts = components(family)
    model = load(write(own, "checkpoints/all.safetensors", stored(checkpoint(family, parts))), own)
    assert model.family is family
    for name, network in networks(parts):
        assert equal(network, model.components[name]), name
        assert not any(tensor.is_meta for tensor in model.components[name].buffers()), name
        assert not model.components[name].training, name
    assert model.scheduler_config["_class_name"] == type(scheduler(family)).__name__


@pytest.mark.parametrize("family", [Family.SD15, Family.FLUX_DEV])
def test_a_loaded_checkpoint_makes_the_image_of_its_parts(family: Family, own: Library) -> None:
    parts = components(family)
    model = load(write(own, "checkpoints/all.safetensors", stored(checkpoint(family, parts))), own)
    request = GenerationRequest("a red circle", width=64, height=64, steps=2, guidance_scale=3.0, seed=1)
    nowhere = own.folders["vae"][0]
    expected = LocalModel("parts", family, nowhere, torch.float32, parts, model.scheduler_config, NetworkCache(CPU))
    assert torch.equal(generate(model, request).images, generate(expected, request).images)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_unets_are_read_as_diffusers_itself_reads_them(family: Family, own: Library, tmp_path: Path) -> None:
    parts = components(family)
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(family, parts)))
    parts["unet"].save_config(tmp_path / "unet")
    theirs = UNet2DConditionModel.from_single_file(
        str(path), config=str(tmp_path), subfolder="unet", local_files_only=True
    )
    assert equal(theirs, load(path, own).denoiser)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_loaded_in_the_requested_dtype(
    dtype: torch.dtype, kept: torch.dtype, own: Library
) -> None:
    parts = components()
    model = load(write(own, "checkpoints/half.safetensors", stored(checkpoint(Family.SD15, parts), kept)), own, dtype)
    for name, network in networks(parts):
        assert equal(network.to(kept), model.components[name], dtype), name
        assert {tensor.dtype for tensor in model.components[name].parameters()} == {dtype}


def test_unscaled_fp8_is_converted(own: Library) -> None:
    parts = components(Family.FLUX_DEV)
    fp8 = torch.float8_e4m3fn
    path = write(own, "checkpoints/fp8.safetensors", stored(checkpoint(Family.FLUX_DEV, parts), fp8))
    assert equal(parts["transformer"].to(fp8), load(path, own, torch.bfloat16).denoiser, torch.bfloat16)


@pytest.mark.parametrize("spelling", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("family", [Family.SD15, Family.FLUX_DEV])
def test_scaled_fp8_is_multiplied_by_its_scale(family: Family, spelling: str, own: Library) -> None:
    parts = components(family)
    tensors = scaled_fp8(checkpoint(family, parts), spelling)
    tensors[f"model.diffusion_model.{'scaled_fp8'}"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    model = load(write(own, "checkpoints/scaled.safetensors", tensors), own)
    for name, network in networks(parts):
        pairs = zip(network.state_dict().values(), model.components[name].state_dict().values(), strict=True)
        worst = max((a - b).norm() / a.norm() for a, b in pairs if a.ndim > 1)
        assert worst < 0.04, name  # fp8 has three bits behind the point


@pytest.mark.parametrize("family", [Family.SD15, Family.FLUX_DEV])
def test_weights_can_be_stored_in_8_bits_and_computed_in_more(family: Family, own: Library) -> None:
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(family, components(family))))
    full, small = (
        load_model(source_of(path, own), "test", CPU, torch.float32, own, storage)
        for storage in (None, torch.float8_e4m3fn)
    )
    sizes = [sum(p.nbytes for p in model.denoiser.parameters()) for model in (full, small)]
    assert sizes[1] < 0.6 * sizes[0]  # norms and ends stay as they are, which counts in a tiny one
    assert small.denoiser.dtype == torch.float32
    request = GenerationRequest("a red circle", width=64, height=64, steps=2, guidance_scale=3.0, seed=1)
    exact, near = (generate(model, request).images for model in (full, small))
    assert 0 < (exact - near).abs().max() < 0.1
    with pytest.raises(InvalidRequest, match=r"test does not support LoRAs\. Disconnect loras"):
        generate(small, replace(request, loras=(Lora("x.safetensors"),)))


def test_fp16_keeps_the_layers_of_t5_that_overflow_in_fp32(own: Library) -> None:
    parts = components(Family.FLUX_DEV)
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(Family.FLUX_DEV, parts)))
    encoder = load(path, own, torch.float16).components["text_encoder_2"]
    kept = {name.split(".")[-2] for name, tensor in encoder.named_parameters() if tensor.dtype == torch.float32}
    assert kept == {"wo"}


def test_an_inpainting_checkpoint_keeps_its_nine_channels(own: Library) -> None:
    parts = components(in_channels=9)
    model = load(write(own, "checkpoints/inpaint.safetensors", stored(checkpoint(Family.SD15, parts))), own)
    assert model.denoiser.config.in_channels == 9
    assert capabilities(model, inventory_of(model)).init_images.mask_required


def test_markers_of_velocity_prediction_reach_the_scheduler(own: Library) -> None:
    parts = components(Family.SDXL)
    marked = {**checkpoint(Family.SDXL, parts), "v_pred": torch.ones(1), "ztsnr": torch.ones(1)}
    config = load(write(own, "checkpoints/v.safetensors", stored(marked)), own).scheduler_config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)


# -- parts from elsewhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Family.SD15, Family.FLUX_DEV, Family.FLUX_SCHNELL])
def test_missing_parts_of_a_denoiser_file_are_found_by_their_headers(family: Family, own: Library) -> None:
    parts = components(family)
    path = write_parts(own, family, parts)
    write(own, "text_encoders/a_stranger.safetensors", {"shared.weight": torch.zeros(4, 4)})
    write(own, "vae/a_taesd.safetensors", {"decoder.layers.0.weight": torch.zeros(4, 4, 3, 3)})
    model = load(path, own)
    for name, network in networks(parts):
        assert equal(network, model.components[name]), name
    assert model.files["vae"].name == "ae.safetensors"
    assert model.files["text_encoder"].name == "clip_l.safetensors"


@pytest.mark.parametrize("family", [Family.SD15, Family.FLUX_DEV])
def test_the_files_of_a_model_are_known_before_it_is_loaded(family: Family, own: Library) -> None:
    parts = components(family)
    path = write_parts(own, family, parts)

    def seen() -> object:
        return stamp(*source_of(path, own).paths())

    assert set(source_of(path, own).paths()) == set(load(path, own).files.values())
    stamps = [seen()]
    assert seen() == stamps[0]
    os.utime(own.find("text_encoders", "clip_l.safetensors"), ns=(0, 0))
    stamps.append(seen())
    write(own, "vae/a_newer.safetensors", stored(ldm_vae(vae(seed=5, flux=family is Family.FLUX_DEV))))
    stamps.append(seen())
    assert load(path, own).files["vae"].name == "a_newer.safetensors"
    assert len(set(stamps)) == 3
    whole = write(own, "checkpoints/all.safetensors", stored(checkpoint(family, parts)))
    assert source_of(whole, own).paths() == [whole]
    chosen = Parts(vae="ae.safetensors")
    assert [file.name for file in source_of(whole, own, chosen).paths()] == ["all.safetensors", "ae.safetensors"]
    assert [file.name for file in source_of(DEMO_MODEL, own, chosen).paths()] == ["demo_model", "ae.safetensors"]


def test_a_denoiser_of_diffusers_is_read_from_its_folder(own: Library) -> None:
    parts = components(Family.FLUX_DEV)
    write_parts(own, Family.FLUX_DEV, parts)
    folder = own.folders["diffusion_models"][0] / "flux"
    parts["transformer"].save_pretrained(folder)
    assert equal(parts["transformer"], load(folder, own).denoiser)


def test_the_user_can_choose_between_two_encoders_of_one_width(own: Library) -> None:
    """The tiny SDXL's two encoders have the same width, unlike the real ones."""
    parts = components(Family.SDXL)
    path = write_parts(own, Family.SDXL, parts)
    chosen = Parts(text_encoders=("clip_l.safetensors", "clip_g.safetensors"))
    model = load(path, own, parts=chosen)
    assert equal(parts["text_encoder"], model.components["text_encoder"])
    assert equal(parts["text_encoder_2"], model.components["text_encoder_2"])


@pytest.mark.parametrize("layout", ["original", "diffusers", "diffusers folder"])
def test_a_chosen_vae_replaces_the_models_own(layout: str, own: Library) -> None:
    other = vae(seed=77)
    name = "other.safetensors"
    if layout == "diffusers folder":
        name = "other"
        other.save_pretrained(own.folders["vae"][0] / name)
    else:
        write(own, f"vae/{name}", stored(ldm_vae(other) if layout == "original" else other.state_dict()))
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(Family.SD15, components())))
    model = load(path, own, parts=Parts(vae=name))
    assert equal(other, model.components["vae"])
    assert equal(other, autoencoder(load(path, own), name).module)
    assert not equal(other, autoencoder(load(path, own)).module)


def test_a_chosen_vae_replaces_that_of_a_diffusers_folder(own: Library) -> None:
    tensors = stored(ldm_vae(vae()))
    write(own, "vae/ae.safetensors", tensors)
    model = load(DEMO_MODEL, own, parts=Parts(vae="ae.safetensors"))
    assert equal(vae(), model.components["vae"])
    assert model.name == "test"
    del tensors["decoder.conv_out.bias"]
    write(own, "vae/ae.safetensors", tensors)
    with pytest.raises(ModelUnreadable, match=r"ae\.safetensors lacks 1 tensors of its AutoencoderKL"):
        load(DEMO_MODEL, own, parts=Parts(vae="ae.safetensors"))


def test_chosen_text_encoders_replace_those_of_a_diffusers_folder(own: Library, tmp_path: Path) -> None:
    parts = components(Family.SDXL)
    StableDiffusionXLPipeline(**parts, scheduler=scheduler(Family.SDXL)).save_pretrained(tmp_path / "model")
    other = clip_text(seed=70)
    write(own, "text_encoders/other.safetensors", stored(hf_text(other)))
    model = load(tmp_path / "model", own, parts=Parts(text_encoders=("other.safetensors", "")))
    assert equal(other, model.components["text_encoder"])
    assert equal(parts["text_encoder_2"], model.components["text_encoder_2"])
    write(own, "text_encoders/vae.safetensors", stored(ldm_vae(vae())))
    with pytest.raises(ModelUnreadable, match=r"vae\.safetensors is a VAE, not a text encoder\. Choose a text encoder"):
        load(tmp_path / "model", own, parts=Parts(text_encoders=("vae.safetensors",)))


def test_a_missing_part_is_named_with_the_folder_it_belongs_in(own: Library) -> None:
    path = write_parts(own, Family.FLUX_DEV, components(Family.FLUX_DEV))
    (own.folders["text_encoders"][0] / "t5xxl.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"needs the T5 text encoder of FLUX\.1 dev .*text_encoders.*Put it there"):
        load(path, own)
    (own.folders["vae"][0] / "ae.safetensors").rename(own.folders["vae"][0] / "sd3_vae.safetensors")
    with pytest.raises(ModelNotFound, match=r"needs (the T5|a VAE)"):
        load(path, own)


def test_a_chosen_part_that_is_missing_or_wrong_is_a_clear_error(own: Library) -> None:
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(Family.SD15, components())))
    with pytest.raises(ModelNotFound, match=r"'gone\.safetensors' is not in .*vae.*\. Put it there"):
        load(path, own, parts=Parts(vae="gone.safetensors"))
    write(own, "vae/net.safetensors", stored(hf_text(components()["text_encoder"])))
    with pytest.raises(ModelUnreadable, match=r"net\.safetensors is a text encoder, not a VAE\. Choose a VAE"):
        load(path, own, parts=Parts(vae="net.safetensors"))
    write(
        own,
        "vae/wide.safetensors",
        {"decoder.up.0.block.0.norm1.weight": torch.zeros(4), "decoder.conv_in.weight": torch.zeros(8, 16, 3, 3)},
    )
    with pytest.raises(ModelUnreadable, match=r"has 16 latent channels, but the model has 4. It belongs to another"):
        load(path, own, parts=Parts(vae="wide.safetensors"))


def test_a_name_does_not_lead_out_of_its_folder(own: Library, tmp_path: Path) -> None:
    write(own, "checkpoints/all.safetensors", stored(checkpoint(Family.SD15, components())))
    for name in ("../checkpoints/all.safetensors", str(tmp_path / "checkpoints" / "all.safetensors")):
        with pytest.raises(ModelNotFound):
            own.find("vae", name)


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), r"lacks 1 tensors of its UNet2DConditionModel.*conv_out"),
        (
            lambda t: t.update({"model.diffusion_model.extra.weight": torch.zeros(1)}),
            "does not know; the first is extra",
        ),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(9)}), "of another shape .* conv_out.bias"),
        (lambda t: t.pop("first_stage_model.decoder.conv_out.bias"), "lacks 1 tensors of its AutoencoderKL"),
    ],
)
def test_tensors_that_are_missing_or_too_many_are_an_error(change: Any, message: str, own: Library) -> None:
    tensors = stored(checkpoint(Family.SD15, components()))
    change(tensors)
    with pytest.raises(ModelUnreadable, match=rf"broken\.safetensors .*{message}.*Download it again"):
        load(write(own, "checkpoints/broken.safetensors", tensors), own)


def test_a_truncated_checkpoint_is_a_clear_error(own: Library) -> None:
    path = write(own, "checkpoints/short.safetensors", stored(checkpoint(Family.SD15, components())))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelUnreadable, match=r"short\.safetensors is truncated: 1000 bytes are missing\."):
        load(path, own)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"model.diffusion_model.joint_blocks.0.x": (4, 4)},
            "is of the SD 3 family\\. The local engine runs SD 1.5, SDXL",
        ),
        (
            {"control_model.input_hint_block.0.weight": (4, 4), "control_model.zero_convs.0.0.weight": (4, 4)},
            "is a ControlNet for SD 1.5, not a complete model",
        ),
        ({"lora_unet_x.lora_down.weight": (4, 4)}, "is a LoRA, not a complete model"),
        ({"anything": (4, 4)}, "is a file of unknown kind"),
        (
            {"input_blocks.0.0.weight": (4, 8, 3, 3)},
            r"has 8 input channels, but a .* has 4\. It was made for another task",
        ),
    ],
)
def test_a_file_that_is_not_a_model_is_refused_before_it_is_read(
    tensors: dict[str, tuple[int, ...]], message: str, own: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(own, "checkpoints/x.safetensors", {name: torch.zeros(shape) for name, shape in tensors.items()})
    monkeypatch.setattr("safetensors.torch.load_file", None)
    with pytest.raises(ModelUnreadable, match=rf"x\.safetensors .*{message}"):
        load(path, own)


def test_a_missing_tokenizer_is_a_clear_error(own: Library) -> None:
    path = write(own, "checkpoints/all.safetensors", stored(checkpoint(Family.SD15, components())))
    with pytest.raises(ModelNotFound, match=r"The CLIP tokenizer is missing\. It is part of ComfyUI"):
        load(path, Library(own.folders, configs=own.configs))


# -- the configurations that ship --------------------------------------------------------------------------------------

# Parameters of the published networks, in thousands.
SIZES = {
    Family.SD15: {"unet": 859_521, "vae": 83_654, "text_encoder": 123_060},
    Family.SDXL: {"unet": 2_567_464, "vae": 83_654, "text_encoder": 123_060, "text_encoder_2": 694_660},
    Family.FLUX_DEV: {"transformer": 11_901_408, "vae": 83_820, "text_encoder": 123_060, "text_encoder_2": 4_762_311},
    Family.FLUX_SCHNELL: {"transformer": 11_891_179},
}


@pytest.mark.parametrize("family", FACTS)
def test_the_configurations_describe_the_published_networks(family: Family) -> None:
    configs = family_configs(family, Library())
    for name, thousands in SIZES[family].items():
        config = dict(configs[name])
        kind = network_class(config.pop("_class_name"))
        with init_empty_weights():
            network = kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind(**config)
        # T5 has its vocabulary under two names.
        sizes = [p.numel() for key, p in network.named_parameters() if key != "encoder.embed_tokens.weight"]
        assert round(sum(sizes) / 1000) == thousands, name


def test_the_configurations_are_small() -> None:
    assert sum(path.stat().st_size for path in CONFIGS.iterdir()) < 60_000


def test_the_tokenizers_of_comfyui_read_prompts_as_the_published_ones_do() -> None:
    comfy = find_comfyui() / "comfy"
    library = Library({}, comfy / "sd1_tokenizer", comfy / "text_encoders" / "t5_tokenizer")
    made = tokenizers(Family.SDXL, library)
    words = [320, 1125, 539, 320, 2368]  # "a photo of a cat", as OpenAI's vocabulary numbers it
    first, second = (
        made[name]("a photo of a cat", padding="max_length").input_ids for name in ("tokenizer", "tokenizer_2")
    )
    assert first == [49406, *words, *[49407] * 71]
    assert second == [49406, *words, 49407, *[0] * 70]
    t5 = tokenizers(Family.FLUX_DEV, library)["tokenizer_2"]
    assert t5("a photo of a cat", padding="max_length").input_ids[:7] == [3, 9, 1202, 13, 3, 9, 1712]
    assert t5.model_max_length == 512


def test_the_tiny_unet_stands_for_the_real_one() -> None:
    """The tests above read tiny files; the real one differs from them in width alone."""
    config = family_configs(Family.SD15, Library())["unet"]
    kind = network_class(config.pop("_class_name"))
    with init_empty_weights():
        real = kind(**config)
    assert real.state_dict().keys() == unet().state_dict().keys()
