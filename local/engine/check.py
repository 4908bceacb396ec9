"""The capabilities of a model with the files found for it, and the problems of a request on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...core.capabilities import Capabilities
from ...core.problems import Problem, ProblemKind
from ...core.request import GenerationRequest
from ...core.scheduler import SchedulerName
from ...core.validate import validate
from ...models.adapter_search import encoder_missing
from ..model.capabilities import TABLES
from ..model.local_model import LocalModel
from .inventory import Inventory

LORA_IS_REMOTE = ProblemKind(
    "lora_is_remote",
    "{field} is '{value}', which is stored with a service. The local engine needs a file. "
    "Choose one of ComfyUI's LoRAs.",
)
FILE_NOT_FOUND = ProblemKind(
    "model_file_not_found",
    "{field} is '{value}', which is not in {places}. Put the file there, or choose another one.",
)
TEXTUAL_INVERSION = ProblemKind(
    "textual_inversion_not_supported",
    "{field} contains '{value}', but the local engine does not load textual inversions. Remove it, or use a LoRA or "
    "the words it stands for.",
)


def family_capabilities(model: LocalModel) -> Capabilities:
    """The capabilities of the model's family, with the model's own scheduler as the default."""
    own = model.scheduler_config["_class_name"]
    known = next((name for name in SchedulerName if name.value == own), None)
    table = TABLES[model.family]
    return replace(table, schedulers=replace(table.schedulers, default=known))


def capabilities(model: LocalModel, inventory: Inventory) -> Capabilities:
    """The family's table, narrowed to what this model and the files in the inventory can do."""
    table = family_capabilities(model)
    kinds = frozenset(inventory.adapters)
    return replace(
        table,
        target=model.name,
        prompts=replace(table.prompts, max_clip_skip=_max_clip_skip(model)),
        controls=replace(table.controls, modalities=frozenset(inventory.nets), remedies=inventory.net_remedies),
        references=replace(table.references, kinds=kinds, maximum=table.references.maximum if kinds else 0),
        # The layers of a LoRA would get the storage dtype, which cannot be computed with.
        loras=replace(table.loras, maximum=0 if model.storage_dtype else table.loras.maximum),
        init_images=replace(table.init_images, mask_required=model.denoiser.config.in_channels == 9),
    )


def problems(model: LocalModel, request: GenerationRequest, inventory: Inventory) -> list[Problem]:
    """Everything that prevents the request: what the model cannot do, and files that are missing."""
    return [
        *validate(request, capabilities(model, inventory)),
        *_missing_files(model, request),
        *_missing_encoders(model, request, inventory),
        *_textual_inversions(request),
    ]


def _missing_files(model: LocalModel, request: GenerationRequest) -> Iterator[Problem]:
    loras = [(f"lora {index}", lora) for index, lora in enumerate(request.loras, 1) if lora.strength != 0]
    for field_name, lora in loras:
        if not lora.name:
            yield LORA_IS_REMOTE(field_name, lora.remote_id)
    wanted = [(field_name, "loras", lora.name) for field_name, lora in loras]
    for field_name, folder, name in (*wanted, ("vae", "vae", request.vae)):
        if name and not model.library.has(folder, name):
            yield FILE_NOT_FOUND(field_name, name, places=model.library.places(folder))


def _missing_encoders(model: LocalModel, request: GenerationRequest, inventory: Inventory) -> Iterator[Problem]:
    for index, reference in enumerate(request.references, 1):
        if reference.scale != 0 and reference.kind in inventory.without_encoder:
            yield encoder_missing(model.library, inventory.adapters[reference.kind], f"reference {index}")


def _textual_inversions(request: GenerationRequest) -> Iterator[Problem]:
    """ComfyUI's own nodes replace these with trained vectors. Here they would be encoded as plain words."""
    for name in ("prompt", "negative_prompt"):
        if found := re.search(r"\bembedding:[^\s:(),]+", getattr(request, name)):
            yield TEXTUAL_INVERSION(name, found[0])


def _max_clip_skip(model: LocalModel) -> int:
    """The largest clip_skip that leaves one layer. SDXL always skips the last one."""
    if model.facts.flow:
        return 0
    layers = min(model.components[name].config.num_hidden_layers for name in model.facts.text_encoders)
    return layers - len(model.facts.text_encoders)
