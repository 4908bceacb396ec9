"""Load networks of the library transformers from local files, never from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable
from ..weights.tensors import read_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_network(model_class: Any, config: Path, weights: Path) -> PreTrainedModel:
    """A model of this class with a configuration and the tensors of a checkpoint, in float32 on the CPU.

    Raises ModelUnreadable when tensors are missing or have another shape. transformers would initialize them randomly.
    """
    import torch

    try:
        configuration = model_class.config_class.from_json_file(config)
        loaded: Any = model_class.from_pretrained(
            None,
            config=configuration,
            state_dict=read_state(weights),
            dtype=torch.float32,
            output_loading_info=True,
        )
        network, report = loaded
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(config, weights, str(error).strip().partition("\n")[0]) from error
    if wrong := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise _unreadable(
            config, weights, f"{len(wrong)} tensors are missing or have another shape, such as {wrong[0]}"
        )
    return network


def _unreadable(config: Path, weights: Path, reason: str) -> ModelUnreadable:
    return ModelUnreadable(
        f"{weights} does not match its {config.name} ({reason}). Move both files elsewhere. The next run downloads "
        f"them "
        f"again."
    )
