"""One pass of a diffusers pipeline for a request, and the networks that take part in it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.conventions import is_black_on_white, limitation
from ...core.request import ControlUnit, GenerationRequest, ImageReference, acting
from ...core.validate import calls_of
from ...models.adapter_search import Adapter
from ...models.net_search import Net
from ..adapters.ip_adapter import adapters_applied, reference_inputs
from ..adapters.loras import ActiveLoras
from ..controlnet.control import Control
from ..controlnet.flux_stack import flux_control_stack
from ..controlnet.hint_cache import hints_encoded_once
from ..controlnet.unet_stack import unet_control_stack
from ..extras.tiled_diffusion import Tile, TiledUNet, tiled_control_stack, tiles_of
from ..files.request_networks import autoencoder, control_network, image_encoder, image_encoder_file
from ..memory.autoencoders import cast_vae, decoding_dtype, sliced_and_tiled, tile_side
from ..memory.offload import Stage, decoding_bytes, denoising_bytes
from ..model.local_model import LocalModel
from ..model.pipelines import pipeline_kind, task_of
from ..schedulers.factory import scheduler_noise_from
from .check import family_capabilities
from .inputs import control_inputs, is_guided, net_controls, net_kind, start_inputs, text_inputs
from .inventory import Inventory
from .preview import latent_preview

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A finished denoising step; `preview()` gives a small image, uint8 [h, w, 3]."""

    number: int
    total: int
    seconds_left: float
    preview: Callable[[], Tensor]


Listener = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class Run:
    """One pass of a valid request on a model.

    `tile_size` is the longest side in pixels of the tiles that the UNet predicts one by one; 0 is the whole image.
    """

    model: LocalModel
    request: GenerationRequest
    inventory: Inventory
    tile_size: int = 0

    @property
    def controls(self) -> list[ControlUnit]:
        """The controls without those of strength 0."""
        return [control for _, control in acting(self.request.controls)]

    @property
    def nets(self) -> list[Net]:
        """The net of each control."""
        return [self.inventory.nets[control.modality] for control in self.controls]

    @property
    def references(self) -> list[ImageReference]:
        """The references without those of scale 0."""
        return [reference for _, reference in acting(self.request.references)]

    @property
    def adapters(self) -> list[Adapter]:
        """The adapter of each reference."""
        return [self.inventory.adapters[reference.kind] for reference in self.references]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image of the batch."""
        return tuple((self.request.seed + index) % 2**64 for index in range(self.request.batch_size))

    @property
    def vae(self) -> Any:
        """The autoencoder the request chose, or the model's own."""
        return autoencoder(self.model, self.request.vae).module

    def files(self) -> Iterator[Path]:
        """The files of the networks that the run needs in addition to the model's own."""
        yield from (net.path for net in self.nets)
        if self.request.vae:
            yield self.model.library.find("vae", self.request.vae)
        for adapter in self.adapters:
            if encoder := image_encoder_file(self.model, adapter):
                yield encoder

    @cached_property
    def tiles(self) -> Mapping[Tile, Tensor]:
        """The tiles that the UNet predicts one by one, with their weights. Empty if it predicts the whole image."""
        if not self.tile_size:
            return {}
        return tiles_of(self.request.width, self.request.height, self.tile_size, self.model.device)

    def stages(self) -> list[Stage]:
        """The networks that compute at the same time, with the memory that they take at this size."""
        model, request = self.model, self.request
        rows = request.batch_size * (2 if is_guided(model, request) else 1)
        nets = dict.fromkeys(control_network(model, net) for net in self.nets)
        longest = self.tile_size or max(request.width, request.height)
        width, height = min(request.width, longest), min(request.height, longest)
        denoising = denoising_bytes(width, height, rows, model.dtype.itemsize, model.facts.activations)
        # Adapters are on the device in addition to what the memory management knows.
        denoising += sum(adapter.path.stat().st_size for adapter in self.adapters)
        stages = [
            Stage([model.managed(name) for name in model.facts.text_encoders]),
            Stage([model.managed(model.facts.denoiser), *nets], denoising),
            Stage([autoencoder(model, request.vae)], self.decoding_bytes(), divisible=False),
        ]
        encoders = dict.fromkeys(image_encoder(model, adapter)[0] for adapter in self.adapters)
        if encoders:
            stages.append(Stage(list(encoders), divisible=False))
        return stages

    def vae_tile_side(self) -> int | None:
        """The side in pixels of the tiles that the autoencoder processes, or None if it takes whole images."""
        request, dtype = self.request, decoding_dtype(self.model.family, self.vae)
        return tile_side(request.width, request.height, dtype, self.model.memory.free())

    def decoding_bytes(self) -> int:
        """The bytes that decoding an image, or one tile of it, takes."""
        tile, dtype = self.vae_tile_side(), decoding_dtype(self.model.family, self.vae)
        width, height = (tile, tile) if tile else (self.request.width, self.request.height)
        return decoding_bytes(width, height, dtype.itemsize)

    def notes(self) -> Iterator[str]:
        """What the user should know about how the request runs."""
        for control, net in zip(self.controls, self.nets, strict=True):
            if is_black_on_white(control):
                yield f"{control.modality.title} Control: the map was inverted, as it had dark lines on light paper."
            if text := limitation(net_kind(self.model, net), control.modality):
                yield f"{control.modality.title} Control with {net.name}: {text}"
        if len(self.tiles) > 1:
            yield f"Every step was predicted in {len(self.tiles)} tiles of {self.tile_size} pixels."

    def prepare(self, scheduler: Any, loras: ActiveLoras) -> Prepared:
        """The pipeline with its arguments. Prompts and references are embedded here."""
        model, request, guided = self.model, self.request, is_guided(self.model, self.request)
        kind = pipeline_kind(model.family, task_of(request), bool(self.controls))
        units = net_controls(model, request, self.controls, self.nets)
        inputs: dict[str, Any] = {
            **text_inputs(model, request, loras),
            **reference_inputs(model, self.references, self.adapters, request.width, request.height, guided),
            **start_inputs(request),
            **control_inputs(model, request, self.controls, self.nets, kind.hints),
        }
        # The pipelines get embeddings, so they need no text encoders, which may be on another device by now.
        without_text = dict.fromkeys((*model.facts.text_encoders, *model.facts.tokenizers))
        parts = {**model.components, **without_text, "vae": self.vae, "scheduler": scheduler}
        if self.tiles:
            parts["unet"] = TiledUNet(model.denoiser, self.tiles)
        if units and model.facts.flow:
            parts["controlnet"] = flux_control_stack(units, inputs[kind.hints], model.denoiser)
        elif units:
            parts["controlnet"] = (tiled_control_stack if self.tiles else unet_control_stack)(units, guided)
        return Prepared(self, kind.build(parts), inputs, units, self.vae_tile_side())


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run with its pipeline. `tile` is the side in pixels of the autoencoder's tiles, or None without tiles."""

    run: Run
    pipeline: Any
    inputs: Mapping[str, Any]
    units: Sequence[Control]
    tile: int | None

    def call(self, listener: Listener, output: str = "pt", **more: Any) -> Tensor:
        """Run the pipeline: images [batch, 3, height, width], or latents as `output` "latent" gives them."""
        import torch

        run, request = self.run, self.run.request
        adapters = adapters_applied(self.pipeline, run.model, run.references, run.adapters)
        # A pipeline that is stopped while it decodes in fp32 leaves the VAE in fp32, but the next latents are not.
        own_dtype = cast_vae(run.vae, run.vae.dtype)
        generators = [torch.Generator().manual_seed(seed) for seed in run.seeds]
        noise = scheduler_noise_from(self.pipeline.scheduler, generators)
        with sliced_and_tiled(run.vae, self.tile), own_dtype, hints_encoded_once(self.units), noise, adapters as scale:
            scale(0, calls_of(request, family_capabilities(run.model)))
            return self.pipeline(
                **self.inputs,
                **self._size(),
                **more,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=generators,
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
            listener(Step(done, total, left, lambda: latent_preview(self.run.model, vae)(self._unpacked(latents))))
            return values

        return after

    def _unpacked(self, latents: Tensor) -> Tensor:
        """Latents as [batch, channels, h, w]. FLUX packs them into tokens."""
        request = self.run.request
        if not self.run.model.facts.flow:
            return latents
        return self.pipeline._unpack_latents(latents, request.height, request.width, self.pipeline.vae_scale_factor)

    def _size(self) -> dict[str, int]:
        """The size, if the pipeline takes it. Other pipelines use that of the initial image."""
        request = self.run.request
        size = {"width": request.width, "height": request.height}
        return size if "width" in inspect.signature(self.pipeline.__call__).parameters else {}

    def notes(self) -> Iterator[str]:
        """What the user should know about the scheduler and about decoding."""
        asked, made = self.run.request.scheduler.name, type(self.pipeline.scheduler).__name__
        if asked and self.run.model.facts.flow:
            yield f"{asked.value} ran as {made}, its counterpart for this family."
        if self.tile:
            yield (
                f"The image was decoded in tiles of {self.tile} pixels, because it is too large for the free memory. "
                "Seams may be visible."
            )
