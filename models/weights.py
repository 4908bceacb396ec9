"""Reading the tensors of a model, and turning 8-bit files back into numbers to compute with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .headers import read_header
from .weight_files import is_pickle, load_pickle, reading, weight_files

if TYPE_CHECKING:
    import torch

# A scale stands beside the weight it belongs to; ComfyUI has used both spellings.
_SCALES = (".scale_weight", ".weight_scale")
# Notes for ComfyUI's own 8-bit layers, of no use to others.
_AVERAGES = "model_ema."  # a second copy of the weights, kept for training
_NOTES = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")


def load_tensors(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of a weights file or diffusers folder on the CPU, floats as `dtype`, 8-bit weights unpacked.

    Raises ModelNotFound or ModelUnreadable.
    """
    from safetensors.torch import load_file

    read_header(path)  # says a cut-off file in words
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        with reading(file):
            tensors |= load_pickle(file) if is_pickle(file) else load_file(file)
    return unpacked(tensors, dtype)


def unpacked(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Floats as `dtype`; where an 8-bit weight has a scale, the product of the two in that precision."""
    import torch

    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_NOTES) or name.startswith(_AVERAGES):
            continue
        stem = name.removesuffix(".weight")
        scale = next((tensors[stem + end] for end in _SCALES if stem + end in tensors), None)
        if scale is not None and tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            # One scale for all, or one per row.
            tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        # A copy even where nothing changes: what lies mapped in the file is not aligned, which makes kernels slower and
        # their last bits others, and holds the file open.
        result[name] = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    return result
