"""The networks that a request needs in addition to the model's own, kept in the model's network cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFound
from ...core.memory import Managed
from ...core.modality import Modality
from ...models.adapter_search import Adapter, encoder_missing, find_image_encoder
from ...models.families import Family
from ...models.net_search import Net
from ..model.family_configs import family_configs
from ..model.local_model import LocalModel
from .controlnet_file import load_net
from .image_encoder_file import image_processor, load_image_encoder
from .part_file import load_vae


def control_network(model: LocalModel, net: Net) -> Managed:
    """The network of a ControlNet. Raises ModelNotFound or ModelUnreadable."""
    averages = model.family is Family.SD15 and net.modality is Modality.SHUFFLE
    return model.networks.from_file(net.path, lambda: load_net(net.path, model.denoiser.config, model.dtype, averages))


def autoencoder(model: LocalModel, name: str = "") -> Managed:
    """The VAE of that name in the library, or the model's own if `name` is empty.

    Raises ModelNotFound or ModelUnreadable.
    """
    if not name:
        return model.managed("vae")
    path = model.library.find("vae", name)
    config = family_configs(model.family, model.library)["vae"]
    return model.networks.from_file(path, lambda: load_vae(path, config, model.dtype))


def has_image_encoder(model: LocalModel, adapter: Adapter) -> bool:
    """Whether there is an image encoder for an IP-Adapter: the model's own, or one in the library."""
    return _reads_own_encoder(model, adapter) or find_image_encoder(model.library, adapter) is not None


def image_encoder_file(model: LocalModel, adapter: Adapter) -> Path | None:
    """The file of the image encoder for an IP-Adapter, None for the model's own encoder. Raises ModelNotFound."""
    if _reads_own_encoder(model, adapter):
        return None
    if path := find_image_encoder(model.library, adapter):
        return path
    raise ModelNotFound(str(encoder_missing(model.library, adapter, "A reference")))


def image_encoder(model: LocalModel, adapter: Adapter) -> tuple[Managed, Any]:
    """The image encoder for an IP-Adapter, and the processor that prepares images for it.

    Raises ModelNotFound or ModelUnreadable.
    """
    path = image_encoder_file(model, adapter)
    if path is None:
        return model.managed("image_encoder"), model.components["feature_extractor"]
    encoder = model.networks.from_file(path, lambda: load_image_encoder(path, model.dtype))
    return encoder, image_processor(encoder.module)


def _reads_own_encoder(model: LocalModel, adapter: Adapter) -> bool:
    own = model.components.get("image_encoder")
    return own is not None and adapter.reads(own.config.hidden_size, own.config.projection_dim)
