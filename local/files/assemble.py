"""A network from its configuration and its tensors, without random numbers in between."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable

if TYPE_CHECKING:
    from torch import Tensor

# Positions that transformers counts by itself, and values of the training that nothing reads.
_UNUSED = ("position_ids", "logit_scale", "attn_mask")


def assemble(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> Any:
    """The network that `config` describes (with its class as `_class_name`), holding these tensors, in eval mode.

    Its numbers are the tensors themselves, not copies. Raises ModelUnreadable, with `source`, when tensors are missing,
    too many or of another shape.
    """
    from accelerate import init_empty_weights

    kind = network_class(config["_class_name"])
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    # Buffers are computed and not in the file: they must be real.
    with init_empty_weights(include_buffers=False):
        module = kind(kind.config_class(**options)) if hasattr(kind, "config_class") else kind.from_config(options)
    expected = module.state_dict()
    given = _as_named_here(tensors, expected)
    missing, unknown = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    reshaped = [name for name in expected if name in given and expected[name].shape != given[name].shape]
    wrong = (
        (missing, "lacks {count} tensors of its {kind}, the first is {name}"),
        (unknown, "has {count} tensors that its {kind} does not know, the first is {name}"),
        (reshaped, "has {count} tensors of another shape than its {kind}, the first is {name}"),
    )
    for names, sentence in wrong:
        if names:
            reason = sentence.format(count=len(names), kind=kind.__name__, name=names[0])
            raise ModelUnreadable(
                f"{source} {reason}. It is broken, or of a build this pack does not know: download it again, or choose "
                "another model."
            )
    module.load_state_dict(_where_half_is_too_little(given, kind), assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.eval().requires_grad_(False)


def _where_half_is_too_little(tensors: dict[str, Tensor], kind: Any) -> dict[str, Tensor]:
    """fp32 for the layers that transformers keeps so, because fp16 overflows in them (T5's `wo`)."""
    import torch

    kept = set(getattr(kind, "_keep_in_fp32_modules", None) or ())
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16 and kept & set(name.split(".")):
            tensors[name] = tensor.float()
    return tensors


def network_class(name: str) -> Any:
    """The class of diffusers or transformers."""
    import diffusers
    import transformers

    return getattr(diffusers if hasattr(diffusers, name) else transformers, name)


def _as_named_here(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as this release of transformers has them.

    Since 5.6 CLIPTextModel has no `text_model` level any more; T5 names one matrix twice.
    """
    wrapped = any(name.startswith("text_model.") for name in expected)
    given = {}
    for name, tensor in tensors.items():
        if name.rsplit(".", 1)[-1] in _UNUSED:
            continue
        if name == "text_projection.weight" and name not in expected:
            continue  # CLIPTextModel ends before it
        bare = name.removeprefix("text_model.")
        named = f"text_model.{bare}" if wrapped and f"text_model.{bare}" in expected else name
        given[named if named in expected or bare not in expected else bare] = tensor
    shared = next((given[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in given), None)
    if shared is not None:
        given |= {name: shared for name in ("shared.weight", "encoder.embed_tokens.weight") if name in expected}
    return given
