"""Loads an image encoder from a single file or a transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.inspection import facts_of
from ...models.weight_files import reading
from ...models.weights import load_tensors
from .layouts import renamed

if TYPE_CHECKING:
    import torch


def load_image_encoder(path: Path, dtype: torch.dtype) -> Any:
    """The image encoder of a single file or a transformers folder. Raises ModelUnreadable."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    if path.is_dir():
        with reading(path):
            return CLIPVisionModelWithProjection.from_pretrained(path, dtype=dtype, local_files_only=True).eval()
    facts = facts_of(path)
    with reading(path):
        tensors = renamed(load_tensors(path, dtype), facts.kind, facts.layout)
        embedding = tensors["vision_model.embeddings.patch_embedding.weight"]
        positions = tensors["vision_model.embeddings.position_embedding.weight"].shape[0] - 1
        layers = {name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")}
        config = CLIPVisionConfig(
            hidden_size=facts.width,
            intermediate_size=tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=len(layers),
            num_attention_heads=_HEADS.get(facts.width, max(1, facts.width // 64)),
            patch_size=embedding.shape[-1],
            image_size=round(positions**0.5) * embedding.shape[-1],
            projection_dim=tensors["visual_projection.weight"].shape[0],
            # OpenAI's own encoder, ViT-L, is the only one with the approximated activation.
            hidden_act="quick_gelu" if facts.width == 1024 else "gelu",
        )
        encoder: Any = CLIPVisionModelWithProjection(config)
        encoder.to(dtype)
        missing, _ = encoder.load_state_dict(tensors, strict=False)
        if lost := [name for name in missing if not name.endswith("position_ids")]:
            raise ValueError(f"{len(lost)} tensors are missing; the first is {lost[0]}")
    return encoder.eval()


_HEADS = {1024: 16, 1280: 16, 1664: 16}


def image_processor(encoder: Any) -> Any:
    """The processor that prepares images for an image encoder, as CLIP's own does."""
    from transformers import CLIPImageProcessor

    side = encoder.config.image_size
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
