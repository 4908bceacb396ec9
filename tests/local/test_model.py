"""Loading a model: which files are found, which are refused, and clear errors for broken ones."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlstack.core.errors import ModelNotFound, ModelUnreadable
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, ReferenceKind
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.engine import inventory as inventory_module
from controlstack.local.engine.check import capabilities
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.load import load_model
from controlstack.local.files.request_networks import control_network
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.source import DEMO_MODEL, source_of
from controlstack.models.families import FACTS, Family
from controlstack.models.library import Library
from controlstack.models.net_search import NetSearch
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.tiny_models import components, scheduler
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo model to break."""
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def load(folder: Path, *net_folders: Path) -> LocalModel:
    return load_model(source_of(folder), "test", PlainMemory(CPU), torch.float32, Library({"controlnet": net_folders}))


def test_the_demo_model_has_its_nets_and_its_adapter(demo: LocalModel) -> None:
    assert set(inventory_of(demo).nets) == {Modality.CANNY, Modality.DEPTH, Modality.OPENPOSE, Modality.POSE}
    assert set(inventory_of(demo).adapters) == {ReferenceKind.STYLE}
    canny = inventory_of(demo).nets[Modality.CANNY]
    assert control_network(demo, canny).module is control_network(demo, canny).module


def test_the_text_encoder_has_the_key_names_that_every_transformers_release_reads() -> None:
    keys = load_file(DEMO_MODEL / "text_encoder" / "model.safetensors")
    assert all(key.startswith("text_model.") for key in keys)


def test_the_demo_model_fits_into_the_repository() -> None:
    files = [path for path in DEMO_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    halves = (tensor for path in files if path.suffix == ".safetensors" for tensor in load_file(path).values())
    assert all(tensor.dtype == torch.float16 for tensor in halves if tensor.is_floating_point())


def test_a_model_prints_without_its_weights(demo: LocalModel) -> None:
    assert repr(demo) == "LocalModel('demo (embedded)', torch.float32, cpu)"


def test_nets_come_from_the_controlnet_folders_and_are_found_when_they_are_added(copy: Path, tmp_path: Path) -> None:
    shared = tmp_path / "controlnet"
    shared.mkdir()
    own = copy / "controlnet" / "canny"
    own.rename(shared / "unused")
    shutil.rmtree(copy / "controlnet")
    model = load(copy, shared)
    assert inventory_of(model).nets == {}
    (shared / "sd15").mkdir()
    added = (shared / "unused").rename(shared / "sd15" / "control_v11p_sd15_canny")
    assert inventory_of(model).nets[Modality.CANNY].path == added
    assert capabilities(model, inventory_of(model)).controls.modalities == {Modality.CANNY}


def test_a_net_is_read_again_if_its_file_was_replaced(copy: Path) -> None:
    model = load(copy)
    canny = inventory_of(model).nets[Modality.CANNY]
    first = control_network(model, canny).module
    gone = weakref.ref(first)
    (weights,) = canny.path.glob("*.safetensors")
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    save_file({**tensors, name: torch.full_like(tensors[name], 2)}, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(0, 0))
    second = control_network(model, canny).module
    assert (second.state_dict()[name] == 2).all()
    assert control_network(model, canny).module is second
    del first
    gc.collect()
    assert gone() is None


def test_half_precision_files_are_used_if_there_are_no_others(copy: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "image_encoder", "controlnet/canny"):
        (weights,) = (copy / part).glob("*.safetensors")
        weights.rename(weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors")))
    model = load(copy)
    assert control_network(model, inventory_of(model).nets[Modality.CANNY]).module.dtype == torch.float32


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"There is no model in .*Choose another model"):
        load(tmp_path)


def test_a_missing_part_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(ModelNotFound, match=r"lacks its folder .*vae.*Download the model again"):
        load(copy)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "image_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_corrupt_file_is_an_error_with_its_path(copy: Path, file: str) -> None:
    path = copy / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelUnreadable, match=rf"{path.parent.name}.* cannot be read \(.*Download the model again"):
        load(copy)


@pytest.mark.parametrize("folder", ["tokenizer", "feature_extractor", "scheduler"])
def test_a_missing_file_is_an_error_with_its_path(copy: Path, folder: str) -> None:
    shutil.rmtree(copy / folder)
    with pytest.raises(ModelUnreadable, match=rf"{folder}.* cannot be read \("):
        load(copy)


def test_classes_that_are_not_allowed_in_an_index_are_refused(copy: Path) -> None:
    index = copy / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    for entry, shown in ((["os", "system"], "system"), (None, "nothing"), (["diffusers"], "nothing")):
        index.write_text(json.dumps({**content, "unet": entry}), encoding="utf-8")
        with pytest.raises(ModelUnreadable, match=rf"has {shown} as its unet, but it must be UNet2DConditionModel"):
            load(copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_missing_tensors_are_an_error_and_not_random_numbers(copy: Path, part: str) -> None:
    (weights,) = (copy / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match=part):
        load(copy)


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", None])
def test_another_family_is_a_clear_error(copy: Path, kind: str | None) -> None:
    index = copy / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    del content["_class_name"]
    index.write_text(json.dumps({**content, **({"_class_name": kind} if kind else {})}), encoding="utf-8")
    shown = kind or "model of unknown kind"
    with pytest.raises(ModelUnreadable, match=rf"contains a {shown}\. .* runs SD 1.5, SDXL"):
        load(copy)


@pytest.mark.parametrize("family", [Family.SDXL, Family.FLUX_DEV, Family.FLUX_SCHNELL])
def test_diffusers_folders_of_every_family_are_loaded(family: Family, tmp_path: Path) -> None:
    parts = components(family)
    kind = FluxPipeline if FACTS[family].flow else StableDiffusionXLPipeline
    kind(**parts, scheduler=scheduler(family)).save_pretrained(tmp_path)
    assert source_of(tmp_path).family is family
    model = load(tmp_path)
    assert model.family is family
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            pairs = zip(part.state_dict().values(), model.components[name].state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), name
    assert model.components["tokenizer_2"]("a red circle").input_ids == parts["tokenizer_2"]("a red circle").input_ids


def test_a_folder_whose_weights_are_of_another_family_than_its_index_says_is_refused(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors = {name: t.new_zeros(t.shape[0], 1024) if "attn2.to_k" in name else t for name, t in tensors.items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match=r"The unet in .* is SD 2\. The local engine runs SD 1\.5, SDXL"):
        load(copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"upscale": True},
        {"scheduler": SchedulerChoice(SchedulerName.DDIM_INVERSE), "init_image": random_image(3)},
    ],
    ids=["plain", "upscaled", "inverted"],
)
def test_nets_and_adapters_are_searched_once_per_generation(
    stocked: Callable[[Family], LocalModel], monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    searches: list[str] = []
    for place, name in ((NetSearch, "nets"), (inventory_module, "find_adapters")):
        plain = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, plain=plain, name=name: searches.append(name) or plain(*a))
    controls = (ControlUnit(Modality.CANNY, random_image(1)), ControlUnit(Modality.DEPTH, random_image(2)))
    references = (ImageReference(random_image(4)), ImageReference(random_image(5), kind=ReferenceKind.CHARACTER))
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=2)
    generate(stocked(Family.SD15), replace(request, controls=controls, references=references, **changes))
    assert sorted(searches) == ["find_adapters", "nets"]
