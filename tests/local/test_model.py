"""Loading: what is found, what is refused, and that broken files are sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from controlstack.core.errors import ModelNotFound, ModelUnreadable
from controlstack.core.modality import Modality
from controlstack.core.request import ReferenceKind
from controlstack.local.model import DEMO_MODEL, LocalModel, load_model
from controlstack.local.nets import find_nets, read_config
from controlstack.local.prompt import encode_prompts
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo model to break."""
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def load(folder: Path, *net_folders: Path) -> LocalModel:
    return load_model(folder, "test", CPU, torch.float32, net_folders)


def test_the_demo_model_has_its_nets_and_its_adapter(demo: LocalModel) -> None:
    assert {Modality.CANNY, Modality.DEPTH, Modality.OPENPOSE} <= set(demo.net_paths)
    assert set(demo.adapter_paths) == {ReferenceKind.STYLE}
    assert demo.net(Modality.CANNY) is demo.net(Modality.CANNY)


def test_the_demo_model_fits_into_the_repository() -> None:
    files = [path for path in DEMO_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    halves = (tensor for path in files if path.suffix == ".safetensors" for tensor in load_file(path).values())
    assert all(tensor.dtype == torch.float16 for tensor in halves if tensor.is_floating_point())


def test_a_model_prints_without_its_weights(demo: LocalModel) -> None:
    assert repr(demo) == "LocalModel('demo (embedded)', torch.float32, cpu)"


def test_nets_come_from_the_controlnet_folders_when_the_model_has_none(copy: Path, tmp_path: Path) -> None:
    shared = tmp_path / "controlnet"
    shared.mkdir()
    (copy / "controlnet" / "canny").rename(shared / "control_v11p_sd15_canny")
    shutil.rmtree(copy / "controlnet")
    assert load(copy).net_paths == {}
    assert load(copy, shared).net_paths == {Modality.CANNY: shared / "control_v11p_sd15_canny"}


def test_a_net_of_another_family_is_not_taken(tmp_path: Path) -> None:
    net = tmp_path / "canny"
    net.mkdir()
    config = {**read_config(DEMO_MODEL / "controlnet" / "canny"), "cross_attention_dim": 2048}
    (net / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert find_nets([tmp_path], read_config(DEMO_MODEL / "unet")) == {}


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"There is no model in .*Choose another model"):
        load(tmp_path)


def test_a_missing_part_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(ModelNotFound, match=r"lacks its folder .*vae.*Download the model again"):
        load(copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_corrupt_weights_are_a_sentence_with_the_path(copy: Path, part: str) -> None:
    (weights,) = (copy / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnreadable, match=rf"The weights in .*{part} cannot be read .*Download the model again"):
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


def test_a_broken_index_and_another_family_are_sentences(copy: Path) -> None:
    index = copy / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    index.write_text("{", encoding="utf-8")
    with pytest.raises(ModelUnreadable, match=r"model_index.json is broken"):
        load(copy)
    index.write_text(json.dumps({**content, "_class_name": "StableDiffusionXLPipeline"}), encoding="utf-8")
    with pytest.raises(ModelUnreadable, match=r"holds a StableDiffusionXLPipeline: .* runs Stable Diffusion 1.5"):
        load(copy)


def test_prompts_are_encoded_as_the_plain_pipeline_does(demo: LocalModel) -> None:
    parts = {**demo.components, "scheduler": None}
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    expected = pipeline.encode_prompt("a red circle", CPU, 1, True, "a blue star")
    got = encode_prompts(["a red circle", "a blue star"], parts["tokenizer"], parts["text_encoder"])
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_embeddings_of_prompts_of_different_length_have_one_shape(demo: LocalModel) -> None:
    parts = demo.components
    long, short = encode_prompts(["a red circle " * 60, ""], parts["tokenizer"], parts["text_encoder"])
    assert long.shape == short.shape == (1, 3 * 77, 96)
