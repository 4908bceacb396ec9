"""Builds a network from its configuration and its tensors, without initializing it first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable

if TYPE_CHECKING:
    from torch import Tensor

# Position ids, which transformers computes itself, and values that only training needs.
_UNUSED = ("position_ids", "logit_scale", "attn_mask")

_MISSING = "{source} lacks {count} tensors of its {kind}; the first is {name}."
_UNKNOWN = "{source} has {count} tensors that its {kind} does not know; the first is {name}."
_RESHAPED = "{source} has {count} tensors of another shape than its {kind}; the first is {name}."


def assemble(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> Any:
    """The network that `config` describes (`_class_name` is its class) with these tensors as its weights, in eval mode.

    The tensors are not copied. Raises ModelUnreadable, which names `source`, if tensors are missing, unknown or of
    another shape.
    """
    from accelerate import init_empty_weights

    kind = network_class(config["_class_name"])
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    # Buffers are not in the file. They are computed when the network is made, so they cannot be on the meta device.
    with init_empty_weights(include_buffers=False):
        module = kind(kind.config_class(**options)) if hasattr(kind, "config_class") else kind.from_config(options)
    expected = module.state_dict()
    given = _match_names(tensors, expected)
    missing, unknown = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    reshaped = [name for name in expected if name in given and expected[name].shape != given[name].shape]
    wrong = ((missing, _MISSING), (unknown, _UNKNOWN), (reshaped, _RESHAPED))
    for names, sentence in wrong:
        if names:
            reason = sentence.format(source=source, count=len(names), kind=kind.__name__, name=names[0])
            raise ModelUnreadable(
                f"{reason} The file is broken, or of a variant that this pack does not know. Download it again, or "
                "choose another model."
            )
    module.load_state_dict(_upcast_layers_kept_in_fp32(given, kind), assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.eval().requires_grad_(False)


def _upcast_layers_kept_in_fp32(tensors: dict[str, Tensor], kind: Any) -> dict[str, Tensor]:
    """The tensors, in fp32 for layers that transformers keeps in fp32 because fp16 overflows in them (T5's `wo`)."""
    import torch

    kept = set(getattr(kind, "_keep_in_fp32_modules", None) or ())
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16 and kept & set(name.split(".")):
            tensors[name] = tensor.float()
    return tensors


def network_class(name: str) -> Any:
    """The class of that name in diffusers or transformers."""
    import diffusers
    import transformers

    return getattr(diffusers if hasattr(diffusers, name) else transformers, name)


def _match_names(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the installed release of transformers uses.

    CLIPTextModel has no `text_model` level since 5.6. T5 has two names for one matrix.
    """
    wrapped = any(name.startswith("text_model.") for name in expected)
    given: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.rsplit(".", 1)[-1] in _UNUSED:
            continue
        if name == "text_projection.weight" and name not in expected:
            continue  # only CLIPTextModelWithProjection has it
        bare = name.removeprefix("text_model.")
        named = f"text_model.{bare}" if wrapped and f"text_model.{bare}" in expected else name
        given[named if named in expected or bare not in expected else bare] = tensor
    shared = next((given[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in given), None)
    if shared is not None:
        given |= {name: shared for name in ("shared.weight", "encoder.embed_tokens.weight") if name in expected}
    return given
