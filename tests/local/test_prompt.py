"""Prompts: weights are read as ComfyUI reads them, and embeddings are those of the plain pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.request import GenerationRequest
from controlstack.local.engine.check import problems
from controlstack.local.engine.inputs import text_inputs
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.load import load_model
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.source import source_of
from controlstack.local.prompt.encoding import encode_prompts
from controlstack.local.prompt.weights import parse_weights
from controlstack.models.families import Family
from controlstack.tests.local.tiny_models import components, scheduler, tiny_model
from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

CPU = torch.device("cpu")
TEXTS = ["a red circle", "a blue star"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("a (red cat:1.3) here", [("a ", 1.0), ("red cat", 1.3), (" here", 1.0)]),
        ("((cat))", [("cat", pytest.approx(1.21))]),
        ("(a (big) cat:0.5)", [("a ", 0.5), ("big", 0.55), (" cat", 0.5)]),
        ("((cat:1.2):1.5)", [("cat", 1.2)]),
        (r"a \(cat\)", [("a (cat)", 1.0)]),
        ("a ( cat", [("a ( cat", 1.0)]),
        (")(", [(")(", 1.0)]),
        ("(a:b:1.5)", [("a:b", 1.5)]),
        ("[cat]", [("[cat]", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_weights_are_read_as_comfyui_reads_them(text: str, pieces: list[tuple[str, float]]) -> None:
    assert parse_weights(text) == pieces


@pytest.fixture(scope="module")
def models() -> dict[Family, LocalModel]:
    return {family: tiny_model(family) for family in (Family.SD15, Family.SDXL, Family.FLUX_DEV)}


def test_sd15_prompts_are_encoded_as_the_plain_pipeline_does(models: dict[Family, LocalModel]) -> None:
    model = models[Family.SD15]
    pipeline = StableDiffusionPipeline(**model.components, scheduler=None, requires_safety_checker=False)
    expected = pipeline.encode_prompt(TEXTS[0], CPU, 1, True, TEXTS[1])
    assert all(torch.equal(a.embeds, b) for a, b in zip(encode_prompts(model, TEXTS), expected, strict=True))


def test_sdxl_prompts_are_encoded_as_the_plain_pipeline_does(models: dict[Family, LocalModel]) -> None:
    model = models[Family.SDXL]
    pipeline = StableDiffusionXLPipeline(**model.components, scheduler=None)
    positive, negative = encode_prompts(model, TEXTS)
    expected = pipeline.encode_prompt(TEXTS[0], device=CPU, negative_prompt=TEXTS[1])
    got = (positive.embeds, negative.embeds, positive.pooled, negative.pooled)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    (skipped,) = encode_prompts(model, TEXTS[:1], clip_skip=1)
    assert torch.equal(skipped.embeds, pipeline.encode_prompt(TEXTS[0], device=CPU, clip_skip=1)[0])


def test_flux_prompts_are_encoded_as_the_plain_pipeline_does(models: dict[Family, LocalModel]) -> None:
    model = models[Family.FLUX_DEV]
    pipeline = FluxPipeline(**model.components, scheduler=None)
    with torch.no_grad():
        embeds, pooled, _ = pipeline.encode_prompt(TEXTS[0], None, device=CPU)
    (got,) = encode_prompts(model, TEXTS[:1])
    assert torch.equal(got.embeds, embeds)
    assert got.pooled is not None
    assert torch.equal(got.pooled, pooled)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_a_weight_changes_its_own_tokens_only(models: dict[Family, LocalModel], family: Family) -> None:
    model = models[family]
    (plain,), (same,), (heavy,) = (
        encode_prompts(model, [t]) for t in ("red circle", "(red:1.0) circle", "(red:1.5) circle")
    )
    assert torch.equal(plain.embeds, same.embeds)
    moved = (heavy.embeds - plain.embeds).abs().sum(-1)[0] > 1e-6
    words = len(model.components[model.facts.tokenizers[-1]]("red", add_special_tokens=False).input_ids)
    start = 0 if model.facts.flow else 1
    assert moved.nonzero().flatten().tolist() == list(range(start, start + words))


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_prompts_of_different_lengths_get_embeddings_of_one_shape(
    models: dict[Family, LocalModel], family: Family
) -> None:
    long, short = encode_prompts(models[family], ["a red circle " * 60, ""])
    assert long.embeds.shape == short.embeds.shape
    assert long.embeds.shape[1] % 77 == 0
    assert long.embeds.shape[1] > 2 * 77


def test_t5_reads_a_prompt_longer_than_it_is_padded_to(models: dict[Family, LocalModel]) -> None:
    filler = "red circle " * 300
    one, other = encode_prompts(models[Family.FLUX_DEV], [filler + "star", filler + "square"])
    assert one.embeds.shape == other.embeds.shape
    assert one.embeds.shape[1] > 512
    assert not torch.equal(one.embeds, other.embeds)


def test_clip_skip_skips_layers(models: dict[Family, LocalModel]) -> None:
    for family in (Family.SD15, Family.SDXL):
        (whole,), (skipped,) = (encode_prompts(models[family], TEXTS[:1], skip) for skip in (0, 1))
        assert not torch.equal(whole.embeds, skipped.embeds)


def test_a_prompt_is_encoded_once() -> None:
    model = tiny_model(Family.SDXL)
    calls = []
    for name in model.facts.text_encoders:
        model.components[name].register_forward_hook(lambda *_: calls.append(1))
    first = encode_prompts(model, TEXTS)
    count = len(calls)
    again = encode_prompts(model, TEXTS)
    assert len(calls) == count > 0
    assert all(torch.equal(a.embeds, b.embeds) for a, b in zip(first, again, strict=True))
    encode_prompts(model, TEXTS, clip_skip=1)
    encode_prompts(model, TEXTS, state=("lora", 1.0))
    assert len(calls) == 3 * count


@pytest.mark.parametrize("zeros", [True, False])
def test_the_index_decides_whether_an_empty_negative_prompt_of_sdxl_is_zeros(zeros: bool, tmp_path: Path) -> None:
    parts = {**components(Family.SDXL), "scheduler": scheduler(Family.SDXL)}
    StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros).save_pretrained(tmp_path)
    model = load_model(source_of(tmp_path), "tiny", PlainMemory(CPU), torch.float32)
    inputs = text_inputs(model, GenerationRequest("a cat", guidance_scale=5), None)
    assert bool(inputs["negative_prompt_embeds"].any()) is not zeros


def test_a_textual_inversion_is_refused_and_not_encoded_as_words() -> None:
    model = tiny_model(Family.SD15)
    for field in ("prompt", "negative_prompt"):
        request = GenerationRequest(**{"prompt": "a cat", field: "a cat, (embedding:easynegative:1.2)"})
        (problem,) = problems(model, request, inventory_of(model))
        assert str(problem).startswith(
            f"{field} contains 'embedding:easynegative', but the local engine does not load textual"
        )
