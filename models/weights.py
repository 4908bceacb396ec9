"""Reads the tensors of a model, and converts 8-bit weights to a dtype that layers compute with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .headers import read_header
from .weight_files import is_pickle, load_pickle, reading, weight_files

if TYPE_CHECKING:
    import torch

# The scale of an 8-bit weight is a tensor beside it. ComfyUI has used both spellings.
_SCALES = (".scale_weight", ".weight_scale")
# Entries that only the 8-bit layers of ComfyUI read.
_QUANTIZATION = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
# A second copy of the weights (their moving average), which only training needs.
_EMA = "model_ema."


def load_tensors(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of a weights file or diffusers folder on the CPU, floats as `dtype`, 8-bit weights dequantized.

    Raises ModelNotFound or ModelUnreadable.
    """
    from safetensors.torch import load_file

    read_header(path)  # explains a truncated file better than safetensors does
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        with reading(file):
            tensors |= load_pickle(file) if is_pickle(file) else load_file(file)
    return dequantized(tensors, dtype)


def dequantized(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors with floats as `dtype`. An 8-bit weight that has a scale is multiplied by it in fp32 before."""
    import torch

    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_QUANTIZATION) or name.startswith(_EMA):
            continue
        stem = name.removesuffix(".weight")
        scale = next((tensors[stem + end] for end in _SCALES if stem + end in tensors), None)
        if scale is not None and tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            # One scale for the whole weight, or one per row.
            tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        # Always a copy. Tensors mapped from a file are not aligned, which slows kernels down and changes the last bits
        # of their results, and they keep the file open.
        result[name] = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    return result
