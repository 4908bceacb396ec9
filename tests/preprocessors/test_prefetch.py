"""The command that lists and fetches trained files, and the folders they are looked for in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlstack.core.modality import Modality
from controlstack.preprocessors import __main__ as command
from controlstack.preprocessors.detector import Detector, Method
from controlstack.preprocessors.detectors import registry
from controlstack.preprocessors.detectors.canny import Canny
from controlstack.preprocessors.weights import folders as weight_folders
from controlstack.preprocessors.weights.declarations import Weights
from controlstack.preprocessors.weights.folders import folders_of_others
from controlstack.tests.preprocessors.hub_double import HubDouble, hub_double

CONTENT = bytes(300_000)
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Trained(Canny):
    name = "trained"
    weights = (Weights("someone/nets", REVISION, "net.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubDouble]:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "AUX_ANNOTATOR_CKPTS_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    methods: dict[Modality, tuple[Method, ...]] = {Modality.CANNY: (Canny(), Trained())}
    detectors = {modality: Detector(modality, "", methods.get(modality, (Canny(),))) for modality in Modality}
    monkeypatch.setattr(registry, "DETECTORS", detectors)
    with hub_double() as double:
        monkeypatch.setenv("HF_ENDPOINT", double.url)
        double.put("someone/nets", REVISION, "net.pth", CONTENT)
        yield double


def test_fetch_brings_what_is_missing_and_a_second_fetch_nothing(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["fetch", "all", "--folder", str(tmp_path / "nets")]
    assert command.main(arguments) == 0
    file = tmp_path / "nets" / "someone" / "nets" / "net.pth"
    assert file.read_bytes() == CONTENT
    assert f"canny trained: net.pth (0.3 MB): {file}" in capsys.readouterr().out
    assert command.main(arguments) == 0
    assert len(hub.transfers) == 1


def test_list_says_what_is_missing_and_fetches_nothing(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(["list", "canny", "--folder", str(tmp_path)]) == 0
    url = f"{hub.url}/someone/nets/resolve/{REVISION}/net.pth"
    assert capsys.readouterr().out == f"canny trained: net.pth (0.3 MB): missing; fetch downloads it from {url}\n"
    assert not hub.requests


def test_a_file_that_cannot_be_had_is_a_sentence_and_a_failed_command(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hub.status = 404
    assert command.main(["fetch", "canny", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(
        "canny trained: net.pth (0.3 MB) is needed and cannot be downloaded: the hub"
    )


def test_a_modality_without_trained_files_says_so(
    hub: HubDouble, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(["fetch", "tile", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "tile needs no trained file.\n"


def test_inside_a_comfyui_its_models_folder_is_meant(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "ControlStack"
    module = pack / "preprocessors" / "weights" / "folders.py"
    monkeypatch.setattr(weight_folders, "__file__", str(module))
    assert command.main(["fetch", "canny"]) == 0
    assert (tmp_path / "ComfyUI" / "models" / "controlstack_detectors" / "someone" / "nets" / "net.pth").is_file()


def test_elsewhere_the_folder_must_be_named(hub: HubDouble, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command.main(["fetch", "canny"])
    assert "Name the folder with --folder" in capsys.readouterr().err


def test_folders_of_other_programs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUX_ANNOTATOR_CKPTS_PATH", str(tmp_path / "chosen"))
    expected = [
        tmp_path / "chosen",
        tmp_path / "custom_nodes" / "comfyui_controlnet_aux" / "ckpts",
        tmp_path / "webui" / "extensions" / "sd-webui-controlnet" / "annotator" / "downloads",
        tmp_path / "webui" / "models" / "ControlNetPreprocessor",
    ]
    checkpoints = [tmp_path / "models" / "checkpoints", tmp_path / "webui" / "models" / "Stable-diffusion"]
    assert folders_of_others([tmp_path / "custom_nodes"], checkpoints) == []
    for folder in expected:
        folder.mkdir(parents=True)
    assert folders_of_others([tmp_path / "custom_nodes"], checkpoints) == expected
