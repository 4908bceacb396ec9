"""The files on the disk that fit a model: ControlNets, and IP-Adapters with their image encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.modality import Modality
from ...core.request import ReferenceKind
from ...models.adapter_search import Adapter, find_adapters
from ...models.net_search import Net, NetSearch
from ..files.request_networks import has_image_encoder
from ..model.local_model import LocalModel


@dataclass(frozen=True)
class Inventory:
    """The files that fitted a model at the time of the search.

    `without_encoder` are the kinds of reference whose adapter has no image encoder. `net_remedies` explains for each
    modality without a ControlNet where to get one.
    """

    nets: Mapping[Modality, Net]
    adapters: Mapping[ReferenceKind, Adapter] = field(default_factory=dict[ReferenceKind, Adapter])
    without_encoder: frozenset[ReferenceKind] = frozenset()
    net_remedies: Mapping[Modality, str] = field(default_factory=dict[Modality, str])


def inventory_of(model: LocalModel) -> Inventory:
    """Search for everything that fits the model. One search is enough for a generation.

    Raises ModelNotFound or ModelUnreadable for a ControlNet that was chosen by name and cannot be used.
    """
    own_nets = model.source / "controlnet"
    search = NetSearch(
        family=model.family,
        width=model.text_width,
        library=model.library,
        own=own_nets if own_nets.is_dir() else None,
        chosen=model.nets_chosen,
    )
    adapters = find_adapters(
        model.source / "ip_adapter",
        model.library,
        model.text_width,
        lambda adapter: has_image_encoder(model, adapter),
    )
    without_encoder = (kind for kind, adapter in adapters.items() if not has_image_encoder(model, adapter))
    return Inventory(search.nets(), adapters, frozenset(without_encoder), search.remedies())
