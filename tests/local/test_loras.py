"""LoRAs: both formats act with their strength, stay loaded, and leave the model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.core.errors import InvalidRequest, ModelUnreadable
from controlstack.core.request import GenerationRequest, Lora
from controlstack.local.adapters import loras
from controlstack.local.engine.check import problems
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.stocked import SIZE
from controlstack.tests.local.stocked import loras as made_loras
from controlstack.tests.local.tiny_models import tiny_model
from safetensors.torch import save_file
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

FAMILIES = [Family.SD15, Family.SDXL, Family.FLUX_DEV]
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=3, guidance_scale=3.5, seed=3)
DIFFUSERS, KOHYA = "diffusers.safetensors", "kohya.safetensors"


def image(model: LocalModel, *wanted: Lora) -> Tensor:
    return generate(model, replace(REQUEST, loras=wanted)).images


def differ(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() > 1e-4)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[Family], LocalModel]:
    def make(family: Family) -> LocalModel:
        model = tiny_model(family, Library({"loras": [tmp_path]}))
        for name, tensors in made_loras(model).items():
            save_file(tensors, tmp_path / f"{name}.safetensors")
        return model

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_acts_by_its_strength_and_leaves_the_model_unchanged(fresh: Models, family: Family) -> None:
    model = fresh(family)
    before = image(model)
    full, half = image(model, Lora(DIFFUSERS)), image(model, Lora(DIFFUSERS, strength=0.5))
    assert differ(full, before)
    assert differ(half, before)
    assert differ(half, full)
    assert torch.equal(image(model, Lora(DIFFUSERS, strength=0.0)), before)
    assert torch.equal(image(model), before)
    assert torch.equal(image(model, Lora(DIFFUSERS)), full)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_a_kohya_file_acts_on_denoiser_and_text_encoder(fresh: Models, family: Family, tmp_path: Path) -> None:
    model = fresh(family)
    before = image(model)
    both = image(model, Lora(KOHYA))
    tensors = made_loras(model)["kohya"]
    save_file({n: t for n, t in tensors.items() if n.startswith("lora_unet_")}, tmp_path / "unet_only.safetensors")
    assert differ(both, before)
    assert differ(both, image(model, Lora("unet_only.safetensors")))
    assert torch.equal(image(model), before)


def test_both_formats_of_the_same_weights_make_the_same_image(fresh: Models, tmp_path: Path) -> None:
    model = fresh(Family.SD15)
    same = {}
    tensors = made_loras(model)["kohya"]
    for name, tensor in made_loras(model)["diffusers"].items():
        layer = name.removeprefix("unet.").rpartition(".lora_")[0].replace(".", "_")
        end = "lora_down" if "lora_A" in name else "lora_up"
        assert torch.equal(tensors[f"lora_unet_{layer}.{end}.weight"], tensor)
        same[name] = tensor
    save_file({n: t for n, t in tensors.items() if n.startswith("lora_unet_")}, tmp_path / "unet_only.safetensors")
    save_file(same, tmp_path / "same.safetensors")
    assert torch.equal(image(model, Lora("unet_only.safetensors")), image(model, Lora("same.safetensors")))


def test_two_loras_add_up(fresh: Models, tmp_path: Path) -> None:
    model = fresh(Family.SD15)
    save_file(made_loras(model)["diffusers"], tmp_path / "twin.safetensors")
    halves = image(model, Lora(DIFFUSERS, strength=0.5), Lora("twin.safetensors", strength=0.5))
    assert (halves - image(model, Lora(DIFFUSERS))).abs().max() < 1e-4


def test_the_same_lora_twice_acts_with_the_sum_of_its_strengths(fresh: Models) -> None:
    model = fresh(Family.SD15)
    twice = image(model, Lora(DIFFUSERS, strength=0.5), Lora(DIFFUSERS, strength=0.25))
    assert torch.equal(twice, image(model, Lora(DIFFUSERS, strength=0.75)))
    assert torch.equal(image(model, Lora(DIFFUSERS), Lora(DIFFUSERS, strength=-1.0)), image(model))


def test_a_lora_is_read_once_and_the_oldest_is_evicted(
    fresh: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(Family.SD15)
    read: list[str] = []
    load = loras._load

    def note(of: LocalModel, pipeline: Any, path: Path, name: str) -> None:
        read.append(path.name)
        load(of, pipeline, path, name)

    monkeypatch.setattr(loras, "_load", note)
    for _ in range(3):
        image(model, Lora(DIFFUSERS))
    assert read == [DIFFUSERS]
    monkeypatch.setattr(loras, "MAX_LOADED", 2)
    before = image(model)
    tensors = made_loras(model)["diffusers"]
    for name in ("b", "c", "d"):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        image(model, Lora(f"{name}.safetensors"))
    assert len(model.denoiser.peft_config) == 2
    image(model, Lora(DIFFUSERS))
    assert read == [DIFFUSERS, "b.safetensors", "c.safetensors", "d.safetensors", DIFFUSERS]
    assert torch.equal(image(model), before)


def test_missing_files_are_reported_before_anything_runs(fresh: Models, tmp_path: Path) -> None:
    model = fresh(Family.SD15)
    wanted = (Lora(DIFFUSERS), Lora("gone.safetensors"), Lora(remote_id="style-7"), Lora("unused", strength=0.0))
    request = replace(REQUEST, loras=wanted, vae="nope.safetensors")
    assert [str(problem) for problem in problems(model, request, inventory_of(model))] == [
        "lora 3 is 'style-7', which is stored with a service. The local engine needs a file. Choose one of ComfyUI's "
        "LoRAs.",
        f"lora 2 is 'gone.safetensors', which is not in {tmp_path}. Put the file there, or choose another one.",
        "vae is 'nope.safetensors', which is not in models/vae. Put the file there, or choose another one.",
    ]
    with pytest.raises(InvalidRequest, match="There are 3 problems"):
        generate(model, request)
    assert problems(model, replace(REQUEST, loras=wanted[:1]), inventory_of(model)) == []


def test_a_lora_for_another_family_is_a_clear_error_and_leaves_the_model_unchanged(
    fresh: Models, tmp_path: Path
) -> None:
    model = fresh(Family.SD15)
    before = image(model)
    for family in (Family.SDXL, Family.FLUX_DEV):
        save_file(made_loras(tiny_model(family))["diffusers"], tmp_path / "foreign.safetensors")
        with pytest.raises(ModelUnreadable, match=r"LoRA .*foreign\.safetensors|foreign\.safetensors .*LoRA"):
            image(model, Lora("foreign.safetensors"))
        assert torch.equal(image(model), before)


def test_a_broken_file_is_a_clear_error(fresh: Models, tmp_path: Path) -> None:
    model = fresh(Family.SD15)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelUnreadable, match=r"broken\.safetensors"):
        image(model, Lora("broken.safetensors"))
