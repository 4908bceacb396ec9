"""A method that works with a network a test has in its hands, instead of one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from controlstack.preprocessors.depth import Depth
from torch import nn


def with_network(method: type[Any], network: nn.Module, **attributes: object) -> Any:
    """An instance of `method` that needs no file; everything else of it is the real thing."""
    body = {"weights": (), "build": staticmethod(lambda *files: network), **attributes}
    return type(f"{method.__name__}WithNetwork", (method,), body)()


def save_tiny(model: Any, folder: Path) -> None:
    """A transformers model as its hub repository has it: configuration and tensors."""
    model.save_pretrained(folder)


class Shows(Depth):
    """Depth as `network` gives it, larger where nearer."""

    name = "shows"
    trained_at = 64
    multiple = 16
    bytes_per_pixel = 100

    def infer(self, network: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        return network(pictures)
