"""Reference images: IP-Adapters that are put into the denoiser for one generation, and taken out again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..core.images import fit_image, to_rgb
from ..core.request import ImageReference, Resize, acts_at
from .adapter_search import Adapter
from .model import LocalModel
from .pictures import to_picture
from .weight_files import reading

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Fitting:
    """What adapters replace in a denoiser: its attention processors, and its projection of image embeddings."""

    processors: Mapping[str, Any]
    projection: Any
    kind: str | None

    @classmethod
    def of(cls, denoiser: Any) -> _Fitting:
        # The projection of a plus adapter has attention of its own, which goes with it.
        own = {name: p for name, p in denoiser.attn_processors.items() if not name.startswith("encoder_hid_proj.")}
        kind = getattr(denoiser.config, "encoder_hid_dim_type", None)
        return cls(own, getattr(denoiser, "encoder_hid_proj", None), kind)

    def put_into(self, denoiser: Any) -> None:
        denoiser.encoder_hid_proj = None
        denoiser.set_attn_processor(dict(self.processors))
        denoiser.encoder_hid_proj = self.projection
        denoiser.config.encoder_hid_dim_type = self.kind

    @contextmanager
    def on(self, device: Any) -> Iterator[None]:
        """Its parts on the device only while this lasts: whoever manages the memory there does not know of them."""
        try:
            self.to(device=device)
            yield
        finally:
            self.to(device="cpu")

    def to(self, **where: Any) -> _Fitting:
        """Itself, with its parts on a device or in a number format."""
        for part in (*self.processors.values(), self.projection):
            if hasattr(part, "to"):
                part.to(**where)
        return self


@contextmanager
def _staying(denoiser: Any) -> Iterator[None]:
    """While this lasts, the denoiser is not moved or cast.

    After loading an adapter diffusers brings the whole UNet to one format, also weights that rest in a smaller one, and
    nothing at all where layers are offloaded; so the adapter's own parts are brought there when they are loaded.
    """
    denoiser.to = lambda *_, **__: denoiser
    try:
        yield
    finally:
        del denoiser.to


@contextmanager
def adapters_applied(
    pipeline: Any, model: LocalModel, references: Sequence[ImageReference], adapters: Sequence[Adapter]
) -> Iterator[Callable[[int, int], None]]:
    """While this lasts, the pipeline has one IP-Adapter per reference; gives a function that sets the scales of a step.

    One adapter per reference, also where two use the same file, gives each a scale and a window of its own. Afterwards
    the denoiser is what it was, the very same objects. Raises ModelUnreadable for a file that does not fit.
    """
    if not references:
        yield lambda step, steps: None
        return
    paths = [adapter.path for adapter in adapters]
    denoiser = model.denoiser
    before = _Fitting.of(denoiser)

    def load() -> _Fitting:
        # The embeddings are made here; but without an encoder the pipeline looks for one where there is none.
        encoder, processor = model.image_encoder(adapters[0])
        pipeline.register_modules(image_encoder=encoder, feature_extractor=processor)
        folders, names = [str(path.parent) for path in paths], [path.name for path in paths]
        with reading(paths[0]), _staying(denoiser):
            pipeline.load_ip_adapter(folders, subfolder=[""] * len(paths), weight_name=names, local_files_only=True)
        return _Fitting.of(denoiser).to(dtype=model.dtype)

    now: list[float] = []

    def scale(step: int, steps: int) -> None:
        scales = [r.scale if acts_at(r, step, steps) else 0.0 for r in references]
        if scales != now:
            now[:] = scales
            # FLUX takes a list of one as the scales of the layers.
            pipeline.set_ip_adapter_scale(scales if len(scales) > 1 else scales[0])

    try:
        fitting = model.fittings.get(tuple((path, path.stat().st_mtime_ns) for path in paths), load)
        with fitting.on(model.device):
            fitting.put_into(denoiser)
            yield scale
    finally:
        before.put_into(denoiser)


def reference_inputs(
    model: LocalModel,
    references: Sequence[ImageReference],
    adapters: Sequence[Adapter],
    width: int,
    height: int,
    guided: bool,
) -> dict[str, Any]:
    """What the pipeline is given beside the adapters: an embedding per reference, and masks where there are any.

    `guided` where the pipeline doubles its batch for guidance. An image that was embedded before is not embedded again.
    """
    if not references:
        return {}
    pairs = zip(references, adapters, strict=True)
    embeds = [_embedding(model, reference, adapter, guided).to(model.device) for reference, adapter in pairs]
    if model.facts.flow:
        # Without true guidance the negative ones are never used, but left out they would be computed.
        nothing = [embed.new_zeros(embed.shape) for embed in embeds]
        return {"ip_adapter_image_embeds": embeds, "negative_ip_adapter_image_embeds": nothing}
    inputs: dict[str, Any] = {"ip_adapter_image_embeds": embeds}
    if any(reference.mask is not None for reference in references):
        masks = [_mask(reference, width, height).to(model.device) for reference in references]
        inputs["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    return inputs


def _embedding(model: LocalModel, reference: ImageReference, adapter: Adapter, guided: bool) -> Tensor:
    """[1, images, ...], or [2, images, ...] with that of no image first, as the pipelines prepare it themselves."""
    import torch

    encoder, processor = model.image_encoder(adapter)
    pictures = [to_picture(frame) for frame in to_rgb(reference.image)]
    digest = hashlib.sha256(b"".join(picture.tobytes() + str(picture.size).encode() for picture in pictures))

    def make() -> tuple[Tensor, Tensor]:
        pixels = processor(pictures, return_tensors="pt").pixel_values.to(encoder.device, encoder.dtype)
        with torch.no_grad():
            if not adapter.hidden:
                positive = encoder(pixels).image_embeds
                return positive.cpu(), torch.zeros_like(positive).cpu()
            both = [encoder(p, output_hidden_states=True).hidden_states[-2] for p in (pixels, torch.zeros_like(pixels))]
            return both[0].cpu(), both[1].cpu()

    key = ("reference", digest.digest(), ref(encoder), adapter.hidden)
    positive, negative = model.remembered.get(key, make)
    return torch.stack([negative, positive] if guided and not model.facts.flow else [positive])


def _mask(reference: ImageReference, width: int, height: int) -> Tensor:
    """[1, images, height, width] with 1 where the reference acts: of the result, over which a mask is stretched."""
    import torch

    images = reference.image.shape[0]
    if reference.mask is None:
        return torch.ones(1, images, height, width)
    mask = fit_image(reference.mask[..., None], width, height, Resize.STRETCH)[..., 0]
    return mask.expand(images, -1, -1)[None] if mask.shape[0] == 1 else mask[None]
