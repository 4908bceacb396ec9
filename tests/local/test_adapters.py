"""References: which adapter serves them, what they change, and that the model is the same afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.memory import Offload
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, ReferenceKind
from controlstack.local.engine.check import problems
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.run import Step
from controlstack.local.files.request_networks import image_encoder
from controlstack.local.model.local_model import LocalModel
from controlstack.models.adapter_search import find_adapters
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.stocked import SIZE, adapters, random_image, stocked_model
from controlstack.tests.local.tiny_models import WIDTH, clip_vision, tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

FAMILIES = [Family.SD15, Family.SDXL, Family.FLUX_DEV]
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=4, guidance_scale=3.5, seed=3)
STYLE = ImageReference(random_image(1), scale=0.8)
LEFT = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)


def image(model: LocalModel, *references: ImageReference) -> Tensor:
    return generate(model, replace(REQUEST, references=references)).images


@pytest.mark.parametrize(
    ("files", "kinds"),
    [
        (["ip-adapter_tiny"], {"style": "ip-adapter_tiny"}),
        (
            ["ip-adapter-plus_tiny"],
            {"style": "ip-adapter-plus_tiny", "character": "ip-adapter-plus_tiny"},
        ),
        (["ip-adapter-plus-face_tiny"], {"face": "ip-adapter-plus-face_tiny"}),
        (
            ["ip-adapter_tiny", "ip-adapter-plus_tiny", "ip-adapter-plus-face_tiny"],
            {"style": "ip-adapter_tiny", "character": "ip-adapter-plus_tiny", "face": "ip-adapter-plus-face_tiny"},
        ),
    ],
)
def test_the_kind_of_a_reference_chooses_the_adapter(tmp_path: Path, files: list[str], kinds: dict[str, str]) -> None:
    known = adapters(tiny_model(Family.SD15))
    for name in files:
        save_file(known[name], tmp_path / f"{name}.safetensors")
    found = find_adapters(tmp_path / "none", Library({"ipadapter": [tmp_path]}), WIDTH, lambda adapter: True)
    assert {kind.value: adapter.path.stem for kind, adapter in found.items()} == kinds


def test_adapters_of_another_family_and_broken_ones_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(adapters(tiny_model(Family.SDXL))["ip-adapter_tiny"], tmp_path / "ip-adapter_sdxl.safetensors")
    (tmp_path / "ip-adapter_broken.safetensors").write_bytes(b"nothing")
    assert find_adapters(tmp_path / "none", Library({"ipadapter": [tmp_path]}), WIDTH, lambda adapter: True) == {}
    assert "The file is skipped." in caplog.text


def test_a_kind_without_an_adapter_is_refused(stocked: Models) -> None:
    model = stocked(Family.FLUX_DEV)
    with pytest.raises(InvalidRequest, match=r"reference 1 kind is face, but .* supports only style"):
        image(model, replace(STYLE, kind=ReferenceKind.FACE))


def test_the_error_for_a_missing_image_encoder_says_where_to_get_it(tmp_path: Path) -> None:
    model = tiny_model(Family.SD15)
    (tmp_path / "ipadapter").mkdir()
    save_file(adapters(model)["ip-adapter_tiny"], tmp_path / "ipadapter" / "ip-adapter_tiny.safetensors")
    model = replace(model, library=Library({name: [tmp_path / name] for name in ("ipadapter", "clip_vision")}))
    said = r"reference 1 uses .* ip-adapter_tiny\.safetensors, .* an image encoder .* 32 .*clip_vision.*Put one"
    with pytest.raises(InvalidRequest, match=said):
        image(model, STYLE)


def test_adapters_with_an_available_image_encoder_come_first(tmp_path: Path) -> None:
    model = stocked_model(Family.SDXL, tmp_path)
    fed = load_file(tmp_path / "ipadapter" / "ip-adapter_tiny.safetensors")
    weight = fed["image_proj.proj.weight"]
    wider = {**fed, "image_proj.proj.weight": torch.zeros(weight.shape[0], WIDTH + 16)}
    save_file(wider, tmp_path / "ipadapter" / "ip-adapter.safetensors")  # the shorter name
    assert inventory_of(model).adapters[ReferenceKind.STYLE].path.stem == "ip-adapter_tiny"
    for kind in (ReferenceKind.STYLE, ReferenceKind.FACE):
        assert problems(model, replace(REQUEST, references=(replace(STYLE, kind=kind),)), inventory_of(model)) == []


def test_an_image_encoder_is_read_from_a_file_and_from_a_folder(tmp_path: Path) -> None:
    from controlstack.local.files.image_encoder_file import load_image_encoder

    made = clip_vision()
    save_file(made.state_dict(), tmp_path / "file.safetensors")
    made.save_pretrained(tmp_path / "folder")
    for path in (tmp_path / "file.safetensors", tmp_path / "folder"):
        read = load_image_encoder(path, torch.float32)
        assert all(
            torch.equal(a, b) for a, b in zip(read.state_dict().values(), made.state_dict().values(), strict=True)
        )
        assert (read.config.image_size, read.config.patch_size) == (32, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reference_acts_and_leaves_the_model_unchanged(stocked: Models, family: Family) -> None:
    model = stocked(family)
    before = dict(model.denoiser.attn_processors)
    weights = {name: tensor.clone() for name, tensor in model.denoiser.state_dict().items()}
    without = image(model)
    assert not torch.equal(image(model, STYLE), without)
    assert torch.equal(image(model, replace(STYLE, scale=0.0)), without)
    assert torch.equal(image(model), without)
    assert all(model.denoiser.attn_processors[name] is processor for name, processor in before.items())
    after = model.denoiser.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reference_acts_inside_its_window_only(stocked: Models, family: Family) -> None:
    model = stocked(family)
    whole, early, late = (
        image(model, replace(STYLE, start=start, end=end)) for start, end in ((0, 1), (0, 0.5), (0.5, 1))
    )
    assert not torch.equal(whole, early)
    assert not torch.equal(early, late)
    assert torch.equal(image(model, STYLE), whole)  # no scale is left behind


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_references_of_three_kinds_with_several_images_and_masks_act_together(stocked: Models, family: Family) -> None:
    model = stocked(family)
    references = (
        replace(STYLE, mask=LEFT),
        ImageReference(random_image(2, batch=2), scale=0.5, kind=ReferenceKind.CHARACTER),
        ImageReference(random_image(3), scale=0.6, kind=ReferenceKind.FACE, mask=1 - LEFT, end=0.5),
    )
    whole = image(model, *references)
    assert torch.equal(image(model, *references), whole)
    for index in range(3):
        assert not torch.equal(image(model, *references[:index], *references[index + 1 :]), whole)
    unmasked = (replace(references[0], mask=None), *references[1:])
    assert not torch.equal(image(model, *unmasked), whole)


@pytest.mark.parametrize("fails", [False, True], ids=["done", "broken off"])
def test_an_adapter_is_on_the_device_only_while_it_acts(
    stocked: Models, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    model = stocked(Family.SD15)
    image(model, STYLE)  # loads it
    places: list[str] = []
    move = torch.nn.Module.to

    def note(module: torch.nn.Module, *place: object, **more: object) -> torch.nn.Module:
        if type(module).__name__ == "MultiIPAdapterImageProjection":
            places.append("device" if isinstance(more["device"], torch.device) else str(more["device"]))
        return move(module, *place, **more)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def listen(step: Step) -> None:
        assert places == ["device"]
        if fails:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.Module, "to", note)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        generate(model, replace(REQUEST, references=(STYLE,)), listen)
    assert places == ["device", "cpu"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_in_another_dtype_acts_in_every_offload_mode(tmp_path: Path, family: Family) -> None:
    model = stocked_model(family, tmp_path)
    for file in (tmp_path / "ipadapter").iterdir():
        save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    images = [image(replace(model, offload=mode), STYLE) for mode in (Offload.SEQUENTIAL, Offload.NONE)]
    assert torch.allclose(*images, atol=1e-5)
    assert not torch.allclose(images[0], image(model), atol=1e-3)


def test_a_reference_leaves_weights_in_their_storage_dtype(tmp_path: Path) -> None:
    model = stocked_model(Family.SD15, tmp_path)
    model.denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    own = {name: parameter.dtype for name, parameter in model.denoiser.named_parameters()}
    assert torch.float8_e4m3fn in own.values()

    def unchanged(*_: object) -> None:
        formats = {name: parameter.dtype for name, parameter in model.denoiser.named_parameters()}
        assert {name: formats[name] for name in own} == own

    with_hook = model.denoiser.register_forward_pre_hook(unchanged)
    assert image(model, STYLE).isfinite().all()
    with_hook.remove()
    unchanged()


def test_the_weights_of_two_adapter_sets_are_cached(tmp_path: Path) -> None:
    model = stocked_model(Family.SD15, tmp_path)
    weights: list[weakref.ref] = []

    def loaded(*kinds: ReferenceKind) -> bool:
        """Whether a generation with these kinds read adapters from their files."""
        before = model.adapter_sets.misses
        references = tuple(replace(STYLE, kind=kind) for kind in kinds)
        generate(model, replace(REQUEST, steps=1, references=references), lambda _: weights.append(_projection(model)))
        return model.adapter_sets.misses > before

    style, character, face = ReferenceKind
    assert [loaded(style), loaded(style, character), loaded(style), loaded(style, character)] == [True, True] + [
        False
    ] * 2
    assert loaded(face)
    gc.collect()
    assert [weight() is None for weight in weights] == [True, False, True, False, False]


def _projection(model: LocalModel) -> weakref.ref:
    return weakref.ref(model.denoiser.encoder_hid_proj)


def test_a_white_mask_changes_nothing(stocked: Models) -> None:
    model = stocked(Family.SD15)
    white = image(model, replace(STYLE, mask=torch.ones(1, SIZE, SIZE)))
    assert (white - image(model, STYLE)).abs().max() < 1e-5
    black = image(model, replace(STYLE, mask=torch.zeros(1, SIZE, SIZE)))
    assert (black - image(model)).abs().max() < 1e-5


def test_flux_refuses_what_its_pipelines_cannot_do_with_references(stocked: Models) -> None:
    model = stocked(Family.FLUX_DEV)
    control = ControlUnit(Modality.CANNY, random_image(4))
    request = replace(REQUEST, references=(STYLE,), controls=(control,), init_image=random_image(5), denoise=0.5)
    with pytest.raises(InvalidRequest, match="cannot use controls, references and init_image in one request"):
        generate(model, request)
    with pytest.raises(InvalidRequest, match=r"reference 1 mask is connected, but .*limit a reference to an area"):
        image(model, replace(STYLE, mask=LEFT))
    with pytest.raises(InvalidRequest, match="does not support negative prompts"):
        generate(model, replace(REQUEST, negative_prompt="blurred"))


def test_a_reference_is_embedded_once(stocked: Models) -> None:
    model = stocked(Family.SDXL)
    managed, _ = image_encoder(model, inventory_of(model).adapters[ReferenceKind.CHARACTER])
    encoder: Any = managed.module
    calls = []
    hook = encoder.register_forward_hook(lambda *_: calls.append(1))
    new = ImageReference(random_image(77), kind=ReferenceKind.CHARACTER)
    first = image(model, new)
    count = len(calls)
    assert count > 0
    assert torch.equal(image(model, new), first)
    generate(model, replace(REQUEST, references=(replace(new, scale=0.3),), seed=9))
    assert len(calls) == count
    hook.remove()
