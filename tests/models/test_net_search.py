"""ControlNets are found by name and header and read from every layout; a missing one is a clear error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlstack.core.conventions import NetKind
from controlstack.core.errors import InvalidRequest, ModelNotFound, ModelUnreadable
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inputs import net_kind
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.controlnet_file import load_net
from controlstack.local.files.request_networks import control_network
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.source import DEMO_MODEL
from controlstack.models.families import FACTS, Family
from controlstack.models.library import Library
from controlstack.models.net_names import NET_SOURCES, NETS_OF, NetWord, published, word_of
from controlstack.models.net_search import NetSearch
from controlstack.tests.local.original_layouts import ldm_unet, stored, xlabs_original
from controlstack.tests.local.tiny_models import (
    WIDTH,
    control_net,
    flux_transformer,
    tiny_model,
    unet,
    union_net,
    xlabs_net,
)
from safetensors.torch import save_file
from torch import Tensor

pytestmark = pytest.mark.slow

NAMES = {
    "canny": NetWord.CANNY,
    "control_v11p_sd15_canny.pth": NetWord.CANNY,
    "diffusers_xl_canny_full.safetensors": NetWord.CANNY,
    "noobaiXLControlnet_epsCanny.safetensors": NetWord.CANNY,
    "FLUX.1-dev-Controlnet-Canny/diffusion_pytorch_model.safetensors": NetWord.CANNY,
    "sdxl/controlnet-canny/model.fp16.safetensors": NetWord.CANNY,
    "control_v11f1p_sd15_depth_fp16": NetWord.DEPTH,
    "sd-controlnet-depth": NetWord.DEPTH,
    "controlnet-zoe-depth-sdxl-1.0": NetWord.DEPTH,
    "Control_V11p_SD15_OpenPose": NetWord.OPENPOSE,
    "OpenPoseXL2.safetensors": NetWord.OPENPOSE,
    "thibaud_xl_openpose_256lora": NetWord.OPENPOSE,
    "control_v11p_sd15_softedge": NetWord.SOFTEDGE,
    "control_sd15_hed": NetWord.SOFTEDGE,
    "ControlNetHED": NetWord.SOFTEDGE,
    "controlnet-sd-xl-1.0-softedge-dexined": NetWord.SOFTEDGE,
    "control_v11p_sd15_mlsd": NetWord.MLSD,
    "control_v11p_sd15_normalbae": NetWord.NORMAL,
    "Flux.1-dev-Controlnet-Surface-Normals": NetWord.NORMAL,
    "control_v11p_sd15_scribble": NetWord.SCRIBBLE,
    "controlnet-scribble-sdxl-1.0": NetWord.SCRIBBLE,
    "control_v11p_sd15_seg": NetWord.SEGMENTATION,
    "control_v11p_sd15_inpaint": NetWord.INPAINT,
    "FLUX.1-dev-Controlnet-Inpainting-Beta": NetWord.INPAINT,
    "control_v11p_sd15s2_lineart_anime": NetWord.LINEART,
    "mistoLine_fp16": NetWord.LINEART,
    "control_v11e_sd15_shuffle": NetWord.SHUFFLE,
    "control_v11f1e_sd15_tile": NetWord.TILE,
    "ttplanetSDXLControlnet_v20Fp16": NetWord.TILE,
    "control_v2p_sd15_mediapipe_face": NetWord.FACE,
    "control_v1p_sd15_qrcode_monster_v2": NetWord.QRCODE,
    "control_v1p_sd15_brightness": NetWord.GRAY,
    "Flux.1-dev-Controlnet-Upscaler": NetWord.LOW_QUALITY,
    "control_v11e_sd15_ip2p": NetWord.OTHER,
    "control_sd15_inpaint_depth_hand_fp16": None,
    "unhedged_mix": None,
    "canny_depth_union": None,
    "controlnet-union-sdxl-1.0": None,
    "diffusion_pytorch_model": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_net_is_known_by_the_words_of_its_name(name: str) -> None:
    assert word_of(name) is NAMES[name]


def test_every_modality_has_a_word_and_a_published_net() -> None:
    assert set(NETS_OF) == set(Modality)
    assert published(Family.SD15) == set(Modality)
    assert Modality.SHUFFLE not in published(Family.SDXL)
    assert published(Family.FLUX_SCHNELL) == published(Family.FLUX_DEV) >= {Modality.CANNY, Modality.GRAY}
    assert all(word_of(name.split("/")[1]) in (word, None) for word, name in NET_SOURCES[Family.SD15].items())


# -- finding -----------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored(tensors), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "controlnet").mkdir()
    return tmp_path / "controlnet"


def search(family: Family, folder: Path, width: int = WIDTH, **fields: object) -> NetSearch:
    width = 2 * width if family is Family.SDXL else width
    return replace(NetSearch(family, width, Library({"controlnet": (folder,)})), **fields)


def test_files_and_folders_are_found_anywhere_below(folder: Path) -> None:
    net = control_net()
    write(folder, "sd15/control_v11p_sd15_canny.safetensors", net.state_dict())
    write(folder, "downloads/control_v11f1p_sd15_depth/diffusion_pytorch_model.safetensors", net.state_dict())
    net.save_pretrained(folder / "openpose")
    found = search(Family.SD15, folder).nets()
    assert {modality: net.name for modality, net in found.items()} == {
        Modality.CANNY: "sd15/control_v11p_sd15_canny.safetensors",
        Modality.DEPTH: "downloads/control_v11f1p_sd15_depth/diffusion_pytorch_model.safetensors",
        Modality.OPENPOSE: "openpose",
        Modality.POSE: "openpose",
    }


def test_a_net_directly_in_the_folder_hides_no_other_net(folder: Path, tmp_path: Path) -> None:
    net = control_net()
    write(folder, "control_v11p_sd15_canny.safetensors", net.state_dict())
    net.save_pretrained(folder)
    assert search(Family.SD15, folder).nets()[Modality.CANNY].name == "control_v11p_sd15_canny.safetensors"
    assert "diffusion_pytorch_model.safetensors" in {file.name for file in Library({"x": [folder]}).files("x")}
    own = tmp_path / "canny_of_the_model"
    net.save_pretrained(own)
    assert search(Family.SD15, folder, own=own).nets()[Modality.CANNY].path == own, "a model's own may be one net"


def test_the_models_own_nets_come_first_and_then_the_shortest_name(folder: Path, tmp_path: Path) -> None:
    net = control_net().state_dict()
    for name in ("canny_with_a_long_name", "canny_b"):
        write(folder, f"{name}.safetensors", net)
    assert search(Family.SD15, folder).nets()[Modality.CANNY].name == "canny_b.safetensors"
    own = write(tmp_path / "own", "canny_of_the_model_itself.safetensors", net)
    assert search(Family.SD15, folder, own=own.parent).nets()[Modality.CANNY].path == own


def test_nets_of_other_families_and_widths_are_not_taken(folder: Path) -> None:
    write(folder, "canny_15.safetensors", control_net(Family.SD15).state_dict())
    write(folder, "canny_xl.safetensors", control_net(Family.SDXL).state_dict())
    write(folder, "canny_flux.safetensors", control_net(Family.FLUX_DEV).state_dict())
    expected = {Family.SD15: "15", Family.SDXL: "xl", Family.FLUX_DEV: "flux", Family.FLUX_SCHNELL: "flux"}
    for family in FACTS:
        assert search(family, folder).nets()[Modality.CANNY].name == f"canny_{expected[family]}.safetensors"
    assert search(Family.SD15, folder, width=768).nets() == {}


@pytest.mark.parametrize(
    ("family", "modes", "modality", "mode"),
    [
        (Family.SDXL, 6, Modality.CANNY, 3),
        (Family.SDXL, 6, Modality.DEPTH, 1),
        (Family.SDXL, 8, Modality.INPAINT, 7),
        (Family.SDXL, 6, Modality.INPAINT, None),
        (Family.SDXL, 8, Modality.SHUFFLE, None),
        (Family.FLUX_DEV, 10, Modality.CANNY, 0),
        (Family.FLUX_SCHNELL, 10, Modality.POSE, 4),
        (Family.FLUX_DEV, 10, Modality.SHUFFLE, None),
    ],
)
def test_a_union_net_serves_the_modalities_it_supports(
    family: Family, modes: int, modality: Modality, mode: int | None, folder: Path
) -> None:
    write(folder, "some_union.safetensors", union_net(family, modes).state_dict())
    net = search(family, folder).nets().get(modality)
    assert (net and net.mode) == mode
    assert net is None or net.union


def test_a_net_for_the_modality_comes_before_a_union_net_and_that_before_a_similar_net(folder: Path) -> None:
    write(folder, "union.safetensors", union_net(Family.SDXL, 8).state_dict())
    write(folder, "tile.safetensors", control_net(Family.SDXL).state_dict())
    found = search(Family.SDXL, folder).nets()
    assert (found[Modality.TILE].name, found[Modality.TILE].union) == ("tile.safetensors", False)
    assert (found[Modality.BLUR].name, found[Modality.BLUR].mode) == ("union.safetensors", 6)
    (folder / "union.safetensors").unlink()
    assert search(Family.SDXL, folder).nets()[Modality.BLUR].name == "tile.safetensors"


def test_the_flux_union_net_without_modes_is_recognized_by_its_name(folder: Path) -> None:
    write(folder, "FLUX.1-dev-ControlNet-Union-Pro-2.0.safetensors", control_net(Family.FLUX_DEV).state_dict())
    found = search(Family.FLUX_DEV, folder).nets()
    assert found[Modality.CANNY].union and found[Modality.CANNY].mode is None
    assert Modality.TILE not in found


def test_an_unreadable_file_is_skipped_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "canny_broken.safetensors", control_net().state_dict()).write_bytes(b"{")
    (folder / "canny").mkdir()
    (folder / "canny" / "config.json").write_text("{", encoding="utf-8")
    found = search(Family.SD15, folder, width=96, own=DEMO_MODEL / "controlnet").nets()
    assert found[Modality.CANNY].path == DEMO_MODEL / "controlnet" / "canny"
    assert "canny_broken.safetensors cannot be read" in caplog.text
    assert "The file is skipped." in caplog.text


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_a_chosen_file_replaces_the_one_found(folder: Path) -> None:
    for name in ("canny", "my_favourite"):
        write(folder, f"{name}.safetensors", control_net().state_dict())
    chosen = {Modality.CANNY: "my_favourite.safetensors", Modality.SHUFFLE: "canny.safetensors"}
    found = search(Family.SD15, folder, chosen=chosen).nets()
    assert {modality: found[modality].name for modality in chosen} == chosen


def test_a_chosen_pickle_is_read(folder: Path) -> None:
    net = control_net()
    torch.save(ldm_unet(net), folder / "control_v11p_sd15_canny.pth")
    assert search(Family.SD15, folder).nets() == {}
    chosen = search(Family.SD15, folder, chosen={Modality.CANNY: "control_v11p_sd15_canny.pth"}).nets()
    loaded = load_net(chosen[Modality.CANNY].path, unet().config, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: control_net(Family.SDXL).state_dict(), "is a ControlNet for SDXL, but the model is SD 1.5"),
        (lambda: unet().state_dict(), "is a diffusion model .* for SD 1.5, which .* cannot use as a ControlNet"),
        (lambda: {"lora_controlnet": torch.zeros(1), "x.weight": torch.zeros(1)}, "is a Control-LoRA, which .* cannot"),
    ],
)
def test_a_chosen_file_that_does_not_fit_is_a_clear_error(tensors: object, message: str, folder: Path) -> None:
    write(folder, "x.safetensors", tensors())  # type: ignore[operator]
    with pytest.raises(ModelUnreadable, match=rf"x\.safetensors {message}.*Choose another ControlNet for canny"):
        search(Family.SD15, folder, chosen={Modality.CANNY: "x.safetensors"}).chosen_nets()
    with pytest.raises(ModelNotFound, match=r"'gone\.safetensors' is not in"):
        search(Family.SD15, folder, chosen={Modality.CANNY: "gone.safetensors"}).nets()


def test_a_union_net_cannot_be_chosen_for_a_modality_it_does_not_support(folder: Path) -> None:
    write(folder, "union.safetensors", union_net(Family.SDXL, 6).state_dict())
    with pytest.raises(ModelUnreadable, match=r"The union net union\.safetensors does not support inpaint"):
        search(Family.SDXL, folder, chosen={Modality.INPAINT: "union.safetensors"}).nets()


# -- missing -----------------------------------------------------------------------------------------------------------


def test_the_error_for_a_missing_net_says_what_was_searched_and_where_to_get_it(folder: Path) -> None:
    write(folder, "canny_xl.safetensors", control_net(Family.SDXL).state_dict())
    (folder / "canny_15.pth").write_bytes(b"")
    text = search(Family.SD15, folder).missing(Modality.CANNY)
    assert text == (
        f"There is no ControlNet for SD 1.5 with canny in its name in {folder}. "
        "canny_15.pth is a pickle, which is opened only if you choose it. "
        "canny_xl.safetensors is a ControlNet for SDXL, but the model is SD 1.5. "
        "Put lllyasviel/control_v11p_sd15_canny from huggingface.co into models/controlnet, choose a file with a "
        "ControlNet Models node, or remove the control."
    )


@pytest.mark.parametrize("family", FACTS)
@pytest.mark.parametrize("modality", Modality)
def test_every_missing_net_has_an_error_text(family: Family, modality: Modality, folder: Path) -> None:
    text = search(family, folder).missing(modality)
    assert text.startswith(f"There is no ControlNet for {family.value} with ")
    assert ("from huggingface.co" in text) == (NETS_OF[modality][0] in NET_SOURCES[family.compatible_family])
    assert not set("()?[]*") & set(text.replace(str(folder), ""))


def test_a_request_for_a_missing_net_is_refused_before_anything_runs(folder: Path) -> None:
    model = tiny_model(Family.SDXL, Library({"controlnet": (folder,)}))
    request = GenerationRequest(controls=(ControlUnit(Modality.CANNY, torch.zeros(1, 64, 64, 3)),))
    with pytest.raises(InvalidRequest, match=r"There is no .*Put xinsir/controlnet-union-sdxl-1\.0 from hugging"):
        generate(model, request)


# -- reading -----------------------------------------------------------------------------------------------------------


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
@pytest.mark.parametrize("layout", ["A1111", "without a prefix", "diffusers", "diffusers folder"])
def test_nets_of_every_layout_are_read_tensor_by_tensor(family: Family, layout: str, folder: Path) -> None:
    net, path = control_net(family), folder / "canny"
    if layout == "diffusers folder":
        net.save_pretrained(path)
    else:
        tensors = net.state_dict() if layout == "diffusers" else ldm_unet(net)
        prefix = "control_model." if layout == "A1111" else ""
        path = write(folder, "canny.safetensors", {prefix + name: tensor for name, tensor in tensors.items()})
    loaded = load_net(path, unet(family).config, torch.float32)
    assert same(net, loaded)
    shown = {key: value for key, value in net.config.items() if not key.startswith("_")}
    assert {key: _plain(loaded.config[key]) for key in shown} == {key: _plain(value) for key, value in shown.items()}


def _plain(value: object) -> object:
    """Configurations write a number for all levels or a list of them, as a tuple or not."""
    if isinstance(value, (tuple, list)):
        return value[0] if len(set(value)) == 1 else list(value)
    return value


@pytest.mark.parametrize("modes", [6, 8])
def test_union_nets_are_read_from_single_files(modes: int, folder: Path) -> None:
    net = union_net(Family.SDXL, modes)
    loaded = load_net(write(folder, "u.safetensors", net.state_dict()), unet(Family.SDXL).config, torch.float32)
    assert same(net, loaded)
    assert loaded.config.num_control_type == modes


@pytest.mark.parametrize("modes", [None, 10])
def test_flux_nets_are_read_from_single_files(modes: int | None, folder: Path) -> None:
    net = union_net(Family.FLUX_DEV, modes) if modes else control_net(Family.FLUX_DEV)
    loaded = load_net(write(folder, "f.safetensors", net.state_dict()), flux_transformer().config, torch.float32)
    assert same(net, loaded)
    assert (loaded.union, loaded.config.num_mode) == (modes is not None, modes)


def test_a_file_of_xlabs_makes_the_image_of_its_folder(folder: Path) -> None:
    net = xlabs_net()
    net.save_pretrained(folder / "folder" / "flux-canny-controlnet-v3")
    (folder / "file").mkdir()
    write(folder / "file", "flux-canny-controlnet-v3.safetensors", xlabs_original(net))
    request = GenerationRequest(
        "a red circle", width=64, height=64, steps=2, controls=(ControlUnit(Modality.CANNY, torch.rand(1, 64, 64, 3)),)
    )
    images = []
    for place in ("folder", "file"):
        model = tiny_model(Family.FLUX_DEV, Library({"controlnet": (folder / place,)}))
        assert same(net, control_network(model, inventory_of(model).nets[Modality.CANNY]).module)
        images.append(generate(model, request).images)
    assert torch.equal(*images)
    assert not torch.equal(images[0], generate(model, replace(request, controls=())).images)


def test_the_map_convention_of_a_flux_net_follows_from_its_kind(folder: Path) -> None:
    files = {
        "FLUX.1-dev-Controlnet-Depth.safetensors": control_net(Family.FLUX_DEV),
        "FLUX.1-dev-ControlNet-Union-Pro-2.0.safetensors": control_net(Family.FLUX_DEV),
        "FLUX.1-dev-Controlnet-Union.safetensors": union_net(Family.FLUX_DEV),
    }
    for name, net in files.items():
        write(folder, name, net.state_dict())
    model = tiny_model(Family.FLUX_DEV, Library({"controlnet": (folder,)}))
    chosen = dict(zip((Modality.DEPTH, Modality.GRAY, Modality.TILE), files, strict=True))
    model = replace(model, nets_chosen=chosen)
    kinds = [net_kind(model, inventory_of(model).nets[modality]) for modality in model.nets_chosen]
    assert kinds == [NetKind.FLUX, NetKind.FLUX_UNION_PRO_2, NetKind.FLUX_UNION]


def test_a_net_that_lacks_tensors_is_a_clear_error(folder: Path) -> None:
    tensors = ldm_unet(control_net())
    del tensors["input_hint_block.14.bias"]
    path = write(folder, "canny.safetensors", tensors)
    with pytest.raises(ModelUnreadable, match=r"canny\.safetensors lacks 1 tensors of its ControlNetModel"):
        load_net(path, unet().config, torch.float32)
    tensors = dict(control_net(Family.FLUX_DEV).state_dict())
    del tensors["context_embedder.weight"]
    path = write(folder, "flux.safetensors", tensors)
    with pytest.raises(ModelUnreadable, match=r"flux\.safetensors has no tensor 'context_embedder\.weight'"):
        load_net(path, flux_transformer().config, torch.float32)


def test_the_shuffle_net_averages_its_outputs(folder: Path) -> None:
    write(folder, "control_v11e_sd15_shuffle.safetensors", control_net().state_dict())
    write(folder, "control_v11p_sd15_canny.safetensors", control_net().state_dict())
    model = tiny_model(Family.SD15, Library({"controlnet": (folder,)}))
    nets = inventory_of(model).nets
    averaging = {
        word: control_network(model, nets[word]).module.config.global_pool_conditions
        for word in (Modality.SHUFFLE, Modality.CANNY)
    }
    assert averaging == {Modality.SHUFFLE: True, Modality.CANNY: False}


def test_a_net_is_loaded_once(folder: Path) -> None:
    write(folder, "canny.safetensors", control_net().state_dict())
    model: LocalModel = tiny_model(Family.SD15, Library({"controlnet": (folder,)}))
    assert (
        control_network(model, inventory_of(model).nets[Modality.CANNY]).module
        is control_network(model, inventory_of(model).nets[Modality.CANNY]).module
    )
