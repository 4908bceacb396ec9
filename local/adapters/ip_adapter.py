"""Reference images: IP-Adapters that are installed in the denoiser for one generation and removed again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from ...core.images import fit_image, to_rgb
from ...core.request import ImageReference, Resize, acts_at
from ...models.adapter_search import Adapter
from ...models.weight_files import reading, stamps
from ..files.request_networks import image_encoder
from ..model.local_model import LocalModel
from ..pil_images import to_pil

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _AdapterLayers:
    """The parts of a denoiser that adapters replace: attention processors, and the projection of image embeddings."""

    processors: Mapping[str, Any]
    projection: Any
    projection_type: str | None

    @classmethod
    def of(cls, denoiser: Any) -> _AdapterLayers:
        # The projection of a plus adapter has attention processors of its own, which stay with it.
        processors = {
            name: p for name, p in denoiser.attn_processors.items() if not name.startswith("encoder_hid_proj.")
        }
        projection_type = getattr(denoiser.config, "encoder_hid_dim_type", None)
        return cls(processors, getattr(denoiser, "encoder_hid_proj", None), projection_type)

    def install(self, denoiser: Any) -> None:
        denoiser.encoder_hid_proj = None
        denoiser.set_attn_processor(dict(self.processors))
        denoiser.encoder_hid_proj = self.projection
        denoiser.config.encoder_hid_dim_type = self.projection_type

    @contextmanager
    def on(self, device: Any) -> Generator[None]:
        """Within this context the parts are on the device. The memory management does not know them."""
        try:
            self.to(device=device)
            yield
        finally:
            self.to(device="cpu")

    def to(self, **where: Any) -> _AdapterLayers:
        """Move or cast the parts; returns itself."""
        for part in (*self.processors.values(), self.projection):
            if hasattr(part, "to"):
                part.to(**where)
        return self


@contextmanager
def _not_moved(denoiser: Any) -> Generator[None]:
    """Within this context the denoiser is not moved or cast.

    After loading an adapter, diffusers casts the whole UNet to one dtype, even weights with a smaller storage dtype,
    and does nothing if layers are offloaded. Instead, only the adapter's own parts are cast after loading.
    """

    def keep(*_: object, **__: object) -> Any:
        return denoiser

    denoiser.to = keep
    try:
        yield
    finally:
        del denoiser.to


@contextmanager
def adapters_applied(
    pipeline: Any, model: LocalModel, references: Sequence[ImageReference], adapters: Sequence[Adapter]
) -> Generator[Callable[[int, int], None]]:
    """Within this context the pipeline has one IP-Adapter per reference; yields a function that sets a step's scales.

    Each reference has an adapter of its own, even if two use the same file, and so its own scale and window. Afterwards
    the denoiser has the same objects as before. Raises ModelUnreadable for a file that does not fit.
    """
    if not references:
        yield lambda step, steps: None
        return
    paths = [adapter.path for adapter in adapters]
    denoiser = model.denoiser
    original = _AdapterLayers.of(denoiser)

    def load() -> _AdapterLayers:
        # The embeddings are made here, but without an encoder the pipeline would search the adapter's folder for one.
        encoder, processor = image_encoder(model, adapters[0])
        pipeline.register_modules(image_encoder=encoder.module, feature_extractor=processor)
        folders, names = [str(path.parent) for path in paths], [path.name for path in paths]
        with reading(paths[0]), _not_moved(denoiser):
            pipeline.load_ip_adapter(folders, subfolder=[""] * len(paths), weight_name=names, local_files_only=True)
        return _AdapterLayers.of(denoiser).to(dtype=model.dtype)

    current: list[float] = []

    def set_scales(step: int, steps: int) -> None:
        scales = [r.scale if acts_at(r, step, steps) else 0.0 for r in references]
        if scales != current:
            current[:] = scales
            # FLUX takes a list with one scale for the scales of its layers.
            pipeline.set_ip_adapter_scale(scales if len(scales) > 1 else scales[0])

    try:
        layers = model.adapter_sets.get(tuple(paths), load, version=stamps(paths))
        with layers.on(model.device):
            layers.install(denoiser)
            yield set_scales
    finally:
        original.install(denoiser)


def reference_inputs(
    model: LocalModel,
    references: Sequence[ImageReference],
    adapters: Sequence[Adapter],
    width: int,
    height: int,
    guided: bool,
) -> dict[str, Any]:
    """The arguments of the pipeline for references: an embedding for each, and the masks if there are any.

    `guided` if the pipeline doubles its batch for guidance. Embeddings of images are cached with the model.
    """
    if not references:
        return {}
    pairs = zip(references, adapters, strict=True)
    embeds = [_embedding(model, reference, adapter, guided).to(model.device) for reference, adapter in pairs]
    if model.facts.flow:
        # FLUX has no true CFG, so these are unused; zeros keep the pipeline from encoding a negative image.
        negative = [embed.new_zeros(embed.shape) for embed in embeds]
        return {"ip_adapter_image_embeds": embeds, "negative_ip_adapter_image_embeds": negative}
    inputs: dict[str, Any] = {"ip_adapter_image_embeds": embeds}
    if any(reference.mask is not None for reference in references):
        masks = [_mask(reference, width, height).to(model.device) for reference in references]
        inputs["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    return inputs


def _embedding(model: LocalModel, reference: ImageReference, adapter: Adapter, guided: bool) -> Tensor:
    """The embedding [1, images, ...], or [2, images, ...] if guided, with that of no image first."""
    import torch

    managed, processor = image_encoder(model, adapter)
    encoder: Any = managed.module
    images = [to_pil(frame) for frame in to_rgb(reference.image)]
    digest = hashlib.sha256(b"".join(image.tobytes() + str(image.size).encode() for image in images))

    def make() -> tuple[Tensor, Tensor]:
        pixels = processor(images, return_tensors="pt").pixel_values.to(encoder.device, encoder.dtype)
        with torch.no_grad():
            if not adapter.hidden:
                positive = encoder(pixels).image_embeds
                return positive.cpu(), torch.zeros_like(positive).cpu()
            both = [encoder(p, output_hidden_states=True).hidden_states[-2] for p in (pixels, torch.zeros_like(pixels))]
            return both[0].cpu(), both[1].cpu()

    key = ("reference", digest.digest(), ref(encoder), adapter.hidden)
    positive, negative = model.results.get(key, make)
    return torch.stack([negative, positive] if guided and not model.facts.flow else [positive])


def _mask(reference: ImageReference, width: int, height: int) -> Tensor:
    """The mask [1, images, height, width] of a reference, stretched over the result: 1 where the reference acts."""
    import torch

    images = reference.image.shape[0]
    if reference.mask is None:
        return torch.ones(1, images, height, width)
    mask = fit_image(reference.mask[..., None], width, height, Resize.STRETCH)[..., 0]
    return mask.expand(images, -1, -1)[None] if mask.shape[0] == 1 else mask[None]
