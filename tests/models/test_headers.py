"""Headers are read without weights and once, and every broken file is a clear error."""

from __future__ import annotations

import pickle
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlstack.core.errors import ModelNotFound, ModelUnreadable
from controlstack.models.headers import read_header
from controlstack.models.inspection import Format, Kind, facts_of
from safetensors.torch import save_file

_NET = {
    "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": (320, 320, 1, 1),
    "conv_in.weight": (320, 4, 3, 3),
    "time_embedding.linear_1.weight": (1280, 320),
}


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_file({name: torch.zeros(*[1] * len(shape)) for name, shape in _NET.items()}, path)
    return path


def test_only_the_header_is_read(net_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    monkeypatch.setattr(safetensors, "safe_open", None)
    monkeypatch.setattr(torch, "load", None)
    assert facts_of(net_file).kind is Kind.CONTROLNET


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(net_file: Path) -> None:
    first = read_header(net_file)
    assert read_header(net_file) is first
    save_file({"layers.0.weight": torch.zeros(2, 2)}, net_file)
    assert facts_of(net_file).kind is Kind.UNKNOWN


@pytest.mark.parametrize("kept", [0, 4, 40, -4])
def test_a_truncated_file_is_a_clear_error(net_file: Path, kept: int) -> None:
    net_file.write_bytes(net_file.read_bytes()[:kept])
    with pytest.raises(
        ModelUnreadable, match=r"net\.safetensors (cannot be read|is truncated).*Download the model again"
    ):
        facts_of(net_file)


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 3}', b'{"a": {"dtype": "F16"}}', b"\xff\xfe"])
def test_an_invalid_header_is_a_clear_error(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelUnreadable, match="cannot be read"):
        facts_of(path)


def test_a_file_of_another_format_and_a_missing_file_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    with pytest.raises(ModelUnreadable, match=r"is not a weights file\. Choose one that ends in \.safetensors"):
        facts_of(tmp_path / "model.onnx")
    with pytest.raises(ModelNotFound, match="no weights in"):
        facts_of(tmp_path / "gone.safetensors")


def test_all_shards_of_a_model_are_read_and_one_of_several_variants(tmp_path: Path) -> None:
    names = list(_NET)
    for number, half in enumerate((names[:2], names[2:]), 1):
        tensors = {name: torch.zeros(*[1] * len(_NET[name])) for name in half}
        save_file(tensors, tmp_path / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
    save_file({"stranger": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert read_header(tmp_path).tensors.keys() == _NET.keys()


def test_a_pickle_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    tensors = {name: torch.zeros(*[2] * len(shape), dtype=torch.float16) for name, shape in _NET.items()}
    torch.save({"state_dict": tensors}, path)
    assert facts_of(path) == replace(facts_of(path), kind=Kind.CONTROLNET, format=Format.FP16)
    trace = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.mkdir, (trace,))

    path.write_bytes(pickle.dumps({"weight": Harmful()}))
    with pytest.raises(ModelUnreadable, match=r"net\.pth cannot be read"):
        facts_of(path)
    assert not trace.exists()
