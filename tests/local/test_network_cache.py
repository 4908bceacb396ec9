"""Networks from files stay in the cache of a model while they are likely to be used again, and no longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.run import Step
from controlstack.local.files import request_networks as networks_module
from controlstack.local.files.request_networks import control_network, image_encoder
from controlstack.local.model.local_model import KEPT_ADAPTER_SETS, LocalModel
from controlstack.local.model.network_cache import KEPT_NETWORKS
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.stocked import SIZE, adapters, random_image
from controlstack.tests.local.tiny_models import clip_vision, control_net, tiny_model
from safetensors.torch import save_file

pytestmark = pytest.mark.slow

# Of each name the net is another file.
NETS = {
    Modality.CANNY: "control_canny",
    Modality.DEPTH: "control_depth",
    Modality.OPENPOSE: "control_openpose",
    Modality.NORMAL: "control_normal",
    Modality.LINEART: "control_lineart",
    Modality.SCRIBBLE: "control_scribble",
    Modality.MLSD: "control_mlsd",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven nets, and an adapter with its image encoder."""
    folder = tmp_path_factory.mktemp("library")
    for number, name in enumerate(NETS.values()):
        control_net(Family.SD15, seed=number).save_pretrained(folder / "controlnet" / name)
    for name in ("ipadapter", "clip_vision"):
        (folder / name).mkdir()
    save_file(
        adapters(tiny_model(Family.SD15))["ip-adapter_tiny"], folder / "ipadapter" / "ip-adapter_tiny.safetensors"
    )
    save_file(clip_vision().state_dict(), folder / "clip_vision" / "tiny.safetensors")
    return folder


@pytest.fixture
def model(folder: Path) -> LocalModel:
    folders = {name: [folder / name] for name in ("controlnet", "ipadapter", "clip_vision")}
    return tiny_model(Family.SD15, Library(folders))


def request(*modalities: Modality, **changes: object) -> GenerationRequest:
    controls = tuple(ControlUnit(modality, random_image(1)) for modality in modalities)
    asked = GenerationRequest("a star", width=SIZE, height=SIZE, steps=1, guidance_scale=1, controls=controls)
    return replace(asked, **changes)


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the nets that are read from the disk."""
    read: list[str] = []
    load = networks_module.load_net

    def noted(path: Path, *rest: object) -> object:
        read.append(path.name)
        return load(path, *rest)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patched:
        patched.setattr(networks_module, "load_net", noted)
        yield read


def test_nets_that_were_used_before_are_evicted_with_their_memory(model: LocalModel) -> None:
    nets = []
    gc.collect()
    gc.disable()  # what is let go is gone at once, not when Python happens to look for cycles
    try:
        for modality in NETS:
            generate(model, request(modality))
            nets.append(ref(control_network(model, inventory_of(model).nets[modality]).module))
        alive = [net() is not None for net in nets]
    finally:
        gc.enable()
    assert alive == [False] * (len(NETS) - KEPT_NETWORKS) + [True] * KEPT_NETWORKS


def test_the_nets_used_last_are_not_read_again(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = list(NETS)[: KEPT_NETWORKS + 1]
    with reads(monkeypatch) as read:
        for modality in (*others[:-1], first, *others[:-1], first):
            generate(model, request(modality))
        assert len(read) == KEPT_NETWORKS, "four nets in turn are read once each"
        generate(model, request(others[-1]))
        generate(model, request(first))
        assert len(read) == KEPT_NETWORKS + 1, "the second most recent one stayed"
        generate(model, request(others[0]))
        assert read[-1] == NETS[others[0]], "the least recently used one was evicted"


def test_a_request_keeps_all_of_its_nets_however_many_they_are(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = request(*list(NETS)[: KEPT_NETWORKS + 2])
    with reads(monkeypatch) as read:
        for seed in (1, 2):
            generate(model, replace(many, seed=seed))
        assert sorted(read) == sorted(NETS[control.modality] for control in many.controls)


def test_a_net_of_the_current_request_is_not_evicted_for_another_one(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    modalities = list(NETS)
    for modality in modalities[:KEPT_NETWORKS]:
        generate(model, request(modality))
    with reads(monkeypatch) as read:
        # The new net comes first in the stack, before the least recently used one.
        generate(model, request(modalities[KEPT_NETWORKS], modalities[0]))
    assert read == [NETS[modalities[KEPT_NETWORKS]]]


def test_image_encoders_are_evicted_like_nets(model: LocalModel) -> None:
    generate(model, request(references=(ImageReference(random_image(2)),)))
    style = next(iter(inventory_of(model).adapters.values()))
    encoder = ref(image_encoder(model, style)[0].module)
    for modality in list(NETS)[: KEPT_NETWORKS - 1]:
        generate(model, request(modality))
    gc.collect()
    assert encoder() is not None
    generate(model, request(Modality.MLSD))
    gc.collect()
    assert encoder() is None
    generate(model, request(references=(ImageReference(random_image(2)),)))  # and is read again


def test_all_but_the_last_adapter_sets_are_evicted(model: LocalModel) -> None:
    one = ImageReference(random_image(2))
    projections: list[ref[Any]] = []
    for count in range(1, KEPT_ADAPTER_SETS + 3):

        def note(_step: Step) -> None:
            projections.append(ref(model.denoiser.encoder_hid_proj))

        generate(model, request(references=(one,) * count), note)
    gc.collect()
    assert [weak() is None for weak in projections] == [True, True] + [False] * KEPT_ADAPTER_SETS
    generate(model, request(references=(one,) * count))
    assert (model.adapter_sets.hits, model.adapter_sets.misses) == (1, KEPT_ADAPTER_SETS + 2)
