"""One pass through a diffusers pipeline for a request, and what of the model takes part in it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..core.conventions import unmet
from ..core.request import ControlUnit, GenerationRequest, ImageReference
from ..core.validate import steps_of
from .adapters import adapters_applied, reference_inputs
from .capabilities import TABLES
from .controlnets import Control, flux_control_stack, hints_encoded_once, unet_control_stack
from .families import Family
from .inputs import control_inputs, is_guided, net_controls, net_kind, start_inputs, text_inputs
from .loras import ActiveLoras
from .model import LocalModel
from .nets import Net
from .offload import Stage, decoding_room, denoising_room
from .pipelines import pipeline_kind, task_of
from .tiled_diffusion import Tile, TiledUNet, tiled_control_stack, tiles_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A finished denoising step; `preview()` gives a small picture, uint8 [h, w, 3]."""

    number: int
    total: int
    seconds_left: float
    preview: Callable[[], Tensor]


Listener = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class Run:
    """A valid request on a model, in one pass.

    `tile_size` is the longest side in pixels of what the UNet sees at once; 0 is the whole picture.
    """

    model: LocalModel
    request: GenerationRequest
    controls: Sequence[ControlUnit]
    nets: Sequence[Net]
    references: Sequence[ImageReference]
    tile_size: int = 0

    @classmethod
    def of(cls, model: LocalModel, request: GenerationRequest, tile_size: int = 0) -> Run:
        """What is of weight 0 is not there."""
        controls = [control for control in request.controls if control.strength != 0]
        known = model.nets() if controls else {}
        return cls(
            model=model,
            request=request,
            controls=controls,
            nets=[known[control.modality] for control in controls],
            references=[reference for reference in request.references if reference.scale != 0],
            tile_size=tile_size,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image of the batch."""
        return tuple((self.request.seed + index) % 2**64 for index in range(self.request.batch_size))

    @property
    def vae(self) -> Any:
        """The autoencoder the request chose, or the model's own."""
        return self.model.vae(self.request.vae)

    @cached_property
    def tiles(self) -> Mapping[Tile, Tensor]:
        """What the UNet sees at once, with the weights of each; none where that is the whole picture."""
        if not self.tile_size:
            return {}
        return tiles_of(self.request.width, self.request.height, self.tile_size, self.model.device)

    def stages(self) -> list[Stage]:
        """The networks that compute together, with the memory they take at this size."""
        model, request = self.model, self.request
        rows = request.batch_size * (2 if is_guided(model, request) else 1)
        nets = {id(net): net for net in map(model.net, self.nets)}.values()
        longest = self.tile_size or max(request.width, request.height)
        width, height = min(request.width, longest), min(request.height, longest)
        denoising = denoising_room(width, height, rows, model.dtype.itemsize)
        stages = [
            Stage([model.managed(model.components[name]) for name in model.facts.text_encoders]),
            Stage([model.managed(network) for network in (model.denoiser, *nets)], denoising),
            Stage([model.managed(self.vae)], self.decoding_room(), divisible=False),
        ]
        known = model.adapters() if self.references else {}
        encoders = [model.image_encoder(known[reference.kind])[0] for reference in self.references]
        if encoders:
            stages.append(Stage([model.managed(encoder) for encoder in dict.fromkeys(encoders)], divisible=False))
        return stages

    def decoding_room(self) -> int:
        """Bytes that decoding a picture takes in one piece."""
        import torch

        vae = self.vae
        # The SDXL pipelines decode in fp32 where fp16 would overflow.
        in_half = self.model.family is Family.SDXL and vae.dtype == torch.float16
        upcast = in_half and vae.config.get("force_upcast", False)
        return decoding_room(self.request.width, self.request.height, 4 if upcast else vae.dtype.itemsize)

    def notes(self) -> Iterator[str]:
        """What the user should know about how the request runs."""
        for control, net in zip(self.controls, self.nets, strict=True):
            if text := unmet(net_kind(self.model, net), control.modality):
                yield f"{control.modality.title} Control with {net.name}: {text}"
        if len(self.tiles) > 1:
            yield f"The model saw the picture in {len(self.tiles)} tiles of {self.tile_size} pixels at every step."

    def prepare(self, scheduler: Any, loras: ActiveLoras) -> Prepared:
        """The pipeline, and what it is called with; text and references are embedded here."""
        model, request, guided = self.model, self.request, is_guided(self.model, self.request)
        kind = pipeline_kind(model.family, task_of(request), bool(self.controls))
        units = net_controls(model, request, self.controls, self.nets)
        inputs = {
            **text_inputs(model, request, loras),
            **reference_inputs(model, self.references, request.width, request.height, guided),
            **start_inputs(request),
            **control_inputs(model, request, self.controls, self.nets, kind.hints),
        }
        # The pipelines are given embeddings, so they need no text encoders, which may lie elsewhere by now.
        without_text = dict.fromkeys((*model.facts.text_encoders, *model.facts.tokenizers))
        parts = {**model.components, **without_text, "vae": self.vae, "scheduler": scheduler}
        if self.tiles:
            parts["unet"] = TiledUNet(model.denoiser, self.tiles)
        if units and model.facts.flow:
            parts["controlnet"] = flux_control_stack(units, model.denoiser)
        elif units:
            parts["controlnet"] = (tiled_control_stack if self.tiles else unet_control_stack)(units, guided)
        in_tiles = self.decoding_room() > model.memory.free()
        return Prepared(self, kind.build(parts), inputs, units, in_tiles)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run whose pipeline is built; `in_tiles` where its pictures are too large to be decoded in one piece."""

    run: Run
    pipeline: Any
    inputs: Mapping[str, Any]
    units: Sequence[Control]
    in_tiles: bool

    def call(self, listener: Listener, output: str = "pt", **more: Any) -> Tensor:
        """Run the pipeline: images [batch, 3, height, width], or latents as `output` "latent" gives them."""
        import torch

        run, request = self.run, self.run.request
        in_tiles = _decoding_in_tiles(run.vae) if self.in_tiles else nullcontext()
        adapters = adapters_applied(self.pipeline, run.model, run.references)
        with in_tiles, _format_kept(run.vae), hints_encoded_once(self.units), adapters as scale:
            scale(0, steps_of(request, TABLES[run.model.family]))
            return self.pipeline(
                **self.inputs,
                **self._size(),
                **more,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in run.seeds],
                output_type=output,
                callback_on_step_end=self._after_step(listener, scale),
            ).images

    def _after_step(self, listener: Listener, scale: Callable[[int, int], None]) -> Callable[..., dict[str, Tensor]]:
        started = time.perf_counter()
        vae = self.run.vae

        def after(pipeline: Any, index: int, _time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            done, total = index + 1, pipeline.num_timesteps
            scale(done, total)
            left = (time.perf_counter() - started) / done * (total - done)
            latents = values["latents"]
            listener(Step(done, total, left, lambda: self.run.model.preview(vae)(self._unpacked(latents))))
            return values

        return after

    def _unpacked(self, latents: Tensor) -> Tensor:
        """[batch, channels, h, w]; FLUX packs them into tokens."""
        request = self.run.request
        if not self.run.model.facts.flow:
            return latents
        return self.pipeline._unpack_latents(latents, request.height, request.width, self.pipeline.vae_scale_factor)

    def _size(self) -> dict[str, int]:
        """Where a pipeline does not take the size, it is that of the picture it starts from."""
        request = self.run.request
        size = {"width": request.width, "height": request.height}
        return size if "width" in inspect.signature(self.pipeline.__call__).parameters else {}

    def notes(self) -> Iterator[str]:
        """What the user should know about how the run goes."""
        asked, made = self.run.request.scheduler.name, type(self.pipeline.scheduler).__name__
        if asked and self.run.model.facts.flow:
            yield f"{asked.value} runs as {made}, its counterpart for this family."
        if self.in_tiles:
            yield "The picture was decoded in tiles, because it is too large for the free memory; seams may be seen."


@contextmanager
def _decoding_in_tiles(vae: Any) -> Iterator[None]:
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()


@contextmanager
def _format_kept(vae: Any) -> Iterator[None]:
    """A pipeline that decodes in fp32 and is broken off leaves the VAE so, and the next latents would not fit it."""
    dtype = vae.dtype
    try:
        yield
    finally:
        vae.to(dtype=dtype)
