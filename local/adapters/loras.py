"""LoRAs: loaded once, kept beside the model's weights, and active only during a request that uses them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import ModelUnreadable
from ...core.memory import is_out_of_memory
from ...core.request import Lora
from ...models.inspection import Kind, facts_of
from ..model.local_model import LocalModel
from ..model.pipelines import Task, pipeline_kind

# The names and strengths of the active LoRAs, which identify their effect.
ActiveLoras = tuple[tuple[str, float], ...]

# The number of LoRAs kept with a model.
MAX_LOADED = 8


@contextmanager
def loras_applied(model: LocalModel, loras: Sequence[Lora]) -> Generator[ActiveLoras]:
    """Within this context the LoRAs act on the denoiser and the text encoders; yields what identifies their effect.

    Afterwards the layers stay in place, disabled: the model computes the same as without them, to the last bit. Raises
    ModelNotFound for a missing file, and ModelUnreadable for one that does not fit the model.
    """
    wanted = _strengths(model, loras)
    if not wanted:
        yield ()
        return
    pipeline = pipeline_kind(model.family, Task.TEXT_TO_IMAGE, False).build({**model.components, "scheduler": None})
    active = tuple((_adapter_name(path), strength) for path, strength in wanted.items())
    names = [name for name, _ in active]
    for path, name in zip(wanted, names, strict=True):
        if name not in _loaded(pipeline):
            _load(model, pipeline, path, name)
    unused = [name for name in _loaded(pipeline) if name not in names]
    if excess := unused[: max(0, len(unused) + len(names) - MAX_LOADED)]:
        pipeline.delete_adapters(excess)
    try:
        _enable(pipeline, on=True)
        pipeline.set_adapters(names, [strength for _, strength in active])
        yield active
    finally:
        _enable(pipeline, on=False)


def _strengths(model: LocalModel, loras: Sequence[Lora]) -> dict[Path, float]:
    """The strength of each file. Strengths of a file used twice are added; PEFT would take the last one."""
    wanted: dict[Path, float] = {}
    for lora in loras:
        if lora.strength != 0:
            path = model.library.find("loras", lora.name)
            wanted[path] = wanted.get(path, 0.0) + lora.strength
    return {path: strength for path, strength in wanted.items() if strength != 0}


def _adapter_name(path: Path) -> str:
    """The name of a LoRA file within the model; a replaced file gets another name."""
    return "lora_" + hashlib.sha256(f"{path} {path.stat().st_mtime_ns}".encode()).hexdigest()[:16]


def _loaded(pipeline: Any) -> list[str]:
    """The names of the loaded LoRAs, the oldest first."""
    return list(dict.fromkeys(name for names in pipeline.get_list_adapters().values() for name in names))


def _load(model: LocalModel, pipeline: Any, path: Path, name: str) -> None:
    facts = facts_of(path)
    if facts.kind is not Kind.LORA or (
        facts.family and facts.family.compatible_family is not model.family.compatible_family
    ):
        raise ModelUnreadable(
            f"{path} is {facts.with_article}, not a LoRA for {model.family.value}. Choose a LoRA for "
            f"{model.family.value}."
        )
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True)
    except Exception as error:
        if name in _loaded(pipeline):
            pipeline.delete_adapters(name)
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelUnreadable(
            f"The LoRA {path} does not fit the model, or is broken ({reason}). Choose a LoRA for {model.family.value}."
        ) from error
    finally:
        _enable(pipeline, on=False)
    if name not in _loaded(pipeline):
        raise ModelUnreadable(
            f"The LoRA {path} contains no weights for this model. Choose a LoRA for {model.family.value}."
        )


def _enable(pipeline: Any, on: bool) -> None:
    for part in pipeline.components.values():
        if getattr(part, "peft_config", None):
            _enable_layers(part, on)


def _enable_layers(part: Any, on: bool) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in part.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(on)
