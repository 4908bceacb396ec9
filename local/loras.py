"""LoRAs: loaded once, kept beside the model's weights, and acting only while a request asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import ModelUnreadable
from ..core.memory import is_out_of_memory
from ..core.request import Lora
from .inspection import Kind, facts_of
from .model import LocalModel
from .pipelines import Task, pipeline_kind

# Names and strengths: what identifies the effect of the LoRAs of a request.
ActiveLoras = tuple[tuple[str, float], ...]

# More than these are not kept beside a model.
KEPT = 8


@contextmanager
def loras_applied(model: LocalModel, loras: Sequence[Lora]) -> Iterator[ActiveLoras]:
    """While this lasts the LoRAs act on denoiser and text encoders; gives what identifies their effect.

    The layers stay in place afterwards, switched off: the model then computes what it would without them, to the last
    bit. Raises ModelNotFound for a missing file and ModelUnreadable for one that does not fit.
    """
    wanted = _strengths(model, loras)
    if not wanted:
        yield ()
        return
    pipeline = pipeline_kind(model.family, Task.TEXT_TO_IMAGE, False).build({**model.components, "scheduler": None})
    state = tuple((_name_of(path), strength) for path, strength in wanted.items())
    names = [name for name, _ in state]
    for path, name in zip(wanted, names, strict=True):
        if name not in _loaded(pipeline):
            _load(model, pipeline, path, name)
    spare = [name for name in _loaded(pipeline) if name not in names]
    if excess := spare[: max(0, len(spare) + len(names) - KEPT)]:
        pipeline.delete_adapters(excess)
    try:
        _switch(pipeline, on=True)
        pipeline.set_adapters(names, [strength for _, strength in state])
        yield state
    finally:
        _switch(pipeline, on=False)


def _strengths(model: LocalModel, loras: Sequence[Lora]) -> dict[Path, float]:
    """How much each file acts. One that is asked for twice acts with the sum: PEFT would take the last strength."""
    wanted: dict[Path, float] = {}
    for lora in loras:
        if lora.strength != 0:
            path = model.library.find("loras", lora.name)
            wanted[path] = wanted.get(path, 0.0) + lora.strength
    return {path: strength for path, strength in wanted.items() if strength != 0}


def _name_of(path: Path) -> str:
    """What the LoRA is called inside the model; a file that changed is another one."""
    return "lora_" + hashlib.sha256(f"{path} {path.stat().st_mtime_ns}".encode()).hexdigest()[:16]


def _loaded(pipeline: Any) -> list[str]:
    """The names of what is loaded, the oldest first."""
    return list(dict.fromkeys(name for names in pipeline.get_list_adapters().values() for name in names))


def _load(model: LocalModel, pipeline: Any, path: Path, name: str) -> None:
    facts = facts_of(path)
    if facts.kind is not Kind.LORA or (
        facts.family and facts.family.compatible_family is not model.family.compatible_family
    ):
        raise ModelUnreadable(
            f"{path} is a {facts}, not a LoRA for {model.family.value}. Choose one that was made for its family."
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
            f"The LoRA {path} does not fit the model, or is broken ({reason}). Choose one that was made for its family."
        ) from error
    finally:
        _switch(pipeline, on=False)
    if name not in _loaded(pipeline):
        raise ModelUnreadable(
            f"The LoRA {path} holds nothing that fits the model. Choose one that was made for its family."
        )


def _switch(pipeline: Any, on: bool) -> None:
    for part in pipeline.components.values():
        if getattr(part, "peft_config", None):
            _switch_layers(part, on)


def _switch_layers(part: Any, on: bool) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in part.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(on)
