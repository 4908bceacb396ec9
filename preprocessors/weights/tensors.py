"""Read the tensors of a trained file, and load them into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_state(file: Path) -> dict[str, Any]:
    """The tensors of a file by name, on the CPU. Some files nest them. Nothing in a pickle is executed.

    Raises ModelUnreadable when the file is broken or holds more than tensors.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelUnreadable(
            f"{file} cannot be read ({reason}). Move it elsewhere. The next run downloads it again."
        ) from error
    return state


def without_prefix(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """The tensors with `prefix` taken off their names. Files saved by DataParallel have "module."."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def load_state(network: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load the tensors of `file` into a network. Raises ModelUnreadable when they belong to another network."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ModelUnreadable(
            f"{file} holds the weights of another network than {type(network).__name__} "
            f"({' '.join(lines[1:2])[:200]}). Move it elsewhere. The next run downloads the right file."
        ) from error
