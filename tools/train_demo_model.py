"""Train the demo model from nothing: autoencoder, UNet with text encoder, three ControlNets, IP-Adapter.

    python -m controlstack.tools.train_demo_model all --work ~/demo-training
    python -m controlstack.tools.train_demo_model unet --work ~/demo-training --steps 30000    # go on
    python -m controlstack.tools.train_demo_model export --work ~/demo-training

Every stage writes `<stage>.pt` into the work folder every few minutes and resumes from it; a stage that has done its
steps returns at once. Batches are drawn from (seed, step), so an interrupted run sees the same data as one in a piece.
CPU (bfloat16 where the processor has it) or one GPU; the figures of the result are in assets/demo_model/README.md.

Losses and schedules: latent diffusion (arXiv:2112.10752), min-SNR-5 weighting (arXiv:2303.09556), ControlNet
(arXiv:2302.05543), IP-Adapter (arXiv:2308.06721), warm-up, stable and decay learning rate (arXiv:2404.06395).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, IPAdapterAttnProcessor
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from . import demo_scenes

ROOT = Path(__file__).resolve().parent.parent
CONTROLS = ("canny", "depth", "openpose")
TRAINING_SEEDS = 1_000_000  # scenes below this seed are held out for the figures
IP_TOKENS = 4
VAE_CROP = 64  # the autoencoder sees only neighborhoods, so crops teach it as much as whole pictures
REFERENCE_SIZE = 64
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = (
    "a an and on of with arms up out standing background left right above below big small person "
    + " ".join((*demo_scenes.COLORS, *demo_scenes.BACKGROUNDS, *demo_scenes.SHAPES))
).split()

# stage: (steps, batch size, peak learning rate)
PLAN = {
    "vae": (12_000, 16, 2e-3),
    "unet": (20_000, 32, 1e-3),
    "canny": (5_000, 32, 7e-4),
    "depth": (3_000, 32, 7e-4),
    "openpose": (4_000, 32, 7e-4),
    "ip_adapter": (4_000, 32, 1e-3),
}


# -- the networks ------------------------------------------------------------------------------------------------------


def build_vae() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(1, 1, 2, 3),
        num_decoder_blocks=(3, 2, 1, 1),
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=96,
            intermediate_size=288,
            projection_dim=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=demo_scenes.SIZE // 8,
        layers_per_block=1,
        block_out_channels=(48, 64, 96),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=4,  # diffusers reads this as the number of heads for SD1.5-style UNets
        norm_num_groups=16,
    )


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 24, 32, 48))


def build_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=80,
            intermediate_size=240,
            projection_dim=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=REFERENCE_SIZE,
            patch_size=8,
        )
    )


def with_fast_attention(net: UNet2DConditionModel | ControlNetModel, device: torch.device) -> None:
    """On a CPU in bfloat16 the backward pass of torch's fused attention takes half of a step; plain products do not."""
    net.set_attn_processor(AttnProcessor() if device.type == "cpu" else AttnProcessor2_0())


def attach_ip_adapter(unet: UNet2DConditionModel) -> nn.ModuleDict:
    """Give the UNet an IP-Adapter the way diffusers does on loading one; returns the new, trainable parts."""
    processors, trainable = {}, {}
    for name, processor in unet.attn_processors.items():
        if not name.endswith("attn2.processor"):
            processors[name] = processor
            continue
        block = unet.get_submodule(name.removesuffix(".processor"))
        width, context = block.to_q.weight.shape[0], block.to_k.weight.shape[1]
        adapter = IPAdapterAttnProcessor(width, context, num_tokens=(IP_TOKENS,), scale=[1.0])
        with torch.no_grad():
            adapter.to_k_ip[0].weight.copy_(block.to_k.weight)
            adapter.to_v_ip[0].weight.copy_(block.to_v.weight)
        processors[name] = trainable[name.replace(".", "/")] = adapter
    unet.set_attn_processor(processors)
    projection = ImageProjection(unet.config.cross_attention_dim, unet.config.cross_attention_dim, IP_TOKENS)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    return nn.ModuleDict({"projection": projection, "attention": nn.ModuleDict(trainable)})


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer: the byte alphabet and one merge chain per caption word, so nothing is ever unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[str] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        whole = pieces[0]
        for piece in pieces[1:]:
            if whole + piece not in vocabulary:
                vocabulary.append(whole + piece)
                merges.append(f"{whole} {piece}")
            whole += piece
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    special = {
        "bos_token": "<|startoftext|>",
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
    }
    files = {
        "vocab.json": json.dumps({token: index for index, token in enumerate(vocabulary)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "special_tokens_map.json": json.dumps(special),
        "tokenizer_config.json": json.dumps(
            {
                **special,
                "model_max_length": 77,
                "do_lower_case": True,
                "errors": "replace",
                "tokenizer_class": "CLIPTokenizer",
            }
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


# -- the data ----------------------------------------------------------------------------------------------------------


def _training_example(index: int) -> dict[str, np.ndarray | str]:
    scene = demo_scenes.draw_scene(TRAINING_SEEDS + 2 * index)
    reference = demo_scenes.draw_scene(TRAINING_SEEDS + 2 * index + 1, palette=scene.palette)
    return {
        "image": scene.image,
        "canny": np.packbits(scene.canny[..., 0] > 0, axis=-1),
        "depth": scene.depth[..., 0],
        "openpose": scene.openpose if scene.openpose.any() else np.zeros((0,)),
        "reference": demo_scenes.cv2.resize(
            reference.image, (REFERENCE_SIZE,) * 2, interpolation=demo_scenes.cv2.INTER_AREA
        ),
        "caption": scene.caption,
        "colorless_caption": scene.colorless_caption,
    }


class Examples:
    """The drawn scenes, in memory; batches come as tensors on the device."""

    def __init__(self, count: int, tokenizer: CLIPTokenizer, device: torch.device) -> None:
        with multiprocessing.Pool() as pool:
            rows = pool.map(_training_example, range(count), chunksize=256)
        self.device = device
        self.arrays = {key: np.stack([row[key] for row in rows]) for key in ("image", "canny", "depth", "reference")}
        self.skeletons = [row["openpose"] for row in rows]
        self.with_person = np.flatnonzero([len(skeleton) for skeleton in self.skeletons])
        self.tokens = {
            key: torch.tensor(tokenizer([row[key] for row in rows], padding="max_length", max_length=77).input_ids).to(
                device
            )
            for key in ("caption", "colorless_caption")
        }
        self.no_tokens = torch.tensor(tokenizer("", padding="max_length", max_length=77).input_ids).to(device)

    def __len__(self) -> int:
        return len(self.skeletons)

    def images(self, rows: np.ndarray, kind: str = "image") -> Tensor:
        """float32 [batch, 3, height, width] in 0..1."""
        if kind == "openpose":
            blank = np.zeros((demo_scenes.SIZE, demo_scenes.SIZE, 3), np.uint8)
            picked = np.stack([self.skeletons[row] if len(self.skeletons[row]) else blank for row in rows])
        elif kind == "canny":
            picked = np.unpackbits(self.arrays["canny"][rows], axis=-1)[..., None].repeat(3, -1) * np.uint8(255)
        elif kind == "depth":
            picked = self.arrays["depth"][rows][..., None].repeat(3, -1)
        else:
            picked = self.arrays[kind][rows]
        return torch.from_numpy(picked).to(self.device).permute(0, 3, 1, 2).float() / 255

    def prompts(self, rows: np.ndarray, dropped: float, chance: torch.Generator, kind: str = "caption") -> Tensor:
        tokens = self.tokens[kind][torch.from_numpy(rows).to(self.device)]
        without = torch.rand(len(rows), generator=chance).lt(dropped).to(self.device)
        return torch.where(without[:, None], self.no_tokens, tokens)


# -- the loop ----------------------------------------------------------------------------------------------------------

Loss = Callable[[np.random.Generator, torch.Generator], Tensor]


class Trainer:
    """The work folder, the device and the one training loop that every stage runs."""

    def __init__(self, work: Path, device: str, examples: int, minutes_between_saves: float = 5) -> None:
        self.work = work
        self.device = torch.device(device)
        self.example_count = examples
        self.save_interval = minutes_between_saves * 60
        self.tokenizer = write_tokenizer(work / "tokenizer")
        self.noise = DDPMScheduler(**NOISE_SCHEDULE)
        self._examples: Examples | None = None

    @property
    def examples(self) -> Examples:
        if self._examples is None:
            started = time.monotonic()
            self._examples = Examples(self.example_count, self.tokenizer, self.device)
            print(f"drew {self.example_count} scenes in {time.monotonic() - started:.0f} s", flush=True)
        return self._examples

    def precision(self) -> contextlib.AbstractContextManager:
        bfloat16 = self.device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16)

    def checkpoint(self, stage: str) -> dict | None:
        path = self.work / f"{stage}.pt"
        return torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None

    def trained(self, stage: str, part: str, module: nn.Module) -> nn.Module:
        """`module` with the averaged weights of `part` of a trained stage, frozen."""
        checkpoint = self.checkpoint(stage)
        if checkpoint is None:
            sys.exit(f"The stage '{stage}' has not been trained in {self.work}; run it first.")
        module.load_state_dict(checkpoint["average"][part])
        return module.to(self.device).eval().requires_grad_(False)

    def run(self, stage: str, parts: dict[str, nn.Module], loss: Loss, steps: int, batch: int, peak: float) -> None:
        """Train `parts` for `steps` in all; `loss(rows_rng, noise_rng)` draws its own batch."""
        for module in parts.values():
            module.to(self.device).train().requires_grad_(True)
        weights = [p for module in parts.values() for p in module.parameters()]
        average = [p.detach().clone() for p in weights]
        optimizer = torch.optim.AdamW(weights, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)
        done = 0
        if saved := self.checkpoint(stage):
            done = saved["step"]
            for name, module in parts.items():
                module.load_state_dict(saved["average"][name])
            average = [p.detach().clone() for p in weights]
            for name, module in parts.items():
                module.load_state_dict(saved["weights"][name])
            optimizer.load_state_dict(saved["optimizer"])

        def save(step: int) -> None:
            states = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in parts.items()}
            current = [p.detach().clone() for p in weights]
            with torch.no_grad():
                torch._foreach_copy_(weights, average)
                averaged = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in parts.items()}
                torch._foreach_copy_(weights, current)
            path = self.work / f"{stage}.pt"
            torch.save(
                {"step": step, "weights": states, "average": averaged, "optimizer": optimizer.state_dict()},
                path.with_suffix(".tmp"),
            )
            path.with_suffix(".tmp").replace(path)

        started = saved_at = time.monotonic()
        recent: list[float] = []
        for step in range(done, steps):
            rate = peak * min(1.0, (step + 1) / 100) * min(1.0, max(0.03, (steps - step) / (0.25 * steps)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            with self.precision():
                value = loss(np.random.default_rng((step, 1)), torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            keep = min(0.999, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - keep)
            recent.append(value.item())
            if (step + 1) % 100 == 0:
                pace = (time.monotonic() - started) / (step + 1 - done)
                left = pace * (steps - step - 1) / 60
                print(
                    f"{stage} {step + 1}/{steps} loss {np.mean(recent):.4f} {pace:.2f} s/step {left:.0f} min left",
                    flush=True,
                )
                recent.clear()
            if time.monotonic() - saved_at > self.save_interval:
                save(step + 1)
                saved_at = time.monotonic()
        if steps > done:
            save(steps)


# -- the stages --------------------------------------------------------------------------------------------------------


def train_vae(trainer: Trainer, steps: int, batch: int, peak: float) -> None:
    torch.manual_seed(0)
    vae = build_vae()
    examples = trainer.examples

    def loss(rows: np.random.Generator, chance: torch.Generator) -> Tensor:
        y, x = rows.integers(demo_scenes.SIZE - VAE_CROP + 1, size=2)
        images = (
            examples.images(rows.integers(len(examples), size=batch))[:, :, y : y + VAE_CROP, x : x + VAE_CROP] * 2 - 1
        )
        codes = vae.encoder(images)
        # Noise on the codes makes neighboring codes mean similar pictures, which is what diffusion needs of them.
        result = vae.decoder(codes + 0.05 * torch.randn(codes.shape, generator=chance).to(codes)).float()
        slopes = sum((result.diff(dim=axis) - images.diff(dim=axis)).abs().mean() for axis in (-1, -2))
        spread = (codes.float().square().mean() - 1).clamp(min=0)
        # The square makes wrong colors count, which the absolute error alone forgives small shapes for long.
        missed = result - images
        return missed.abs().mean() + 2 * missed.square().mean() + 0.5 * slopes + 1e-3 * spread

    trainer.run("vae", {"vae": vae}, loss, steps, batch, peak)


def latents(trainer: Trainer) -> Tensor:
    """The scenes as the trained autoencoder sees them, scaled to unit deviation, kept in the work folder."""
    path = trainer.work / f"latents-{trainer.example_count}.pt"
    if not path.exists():
        vae = trainer.trained("vae", "vae", build_vae())
        images = trainer.examples
        with torch.no_grad(), trainer.precision():
            chunks = [
                vae.encoder(images.images(rows) * 2 - 1).float().cpu()
                for rows in np.array_split(np.arange(len(images)), math.ceil(len(images) / 64))
            ]
        codes = torch.cat(chunks)
        torch.save({"latents": codes / codes.std(), "scaling_factor": 1 / codes.std().item()}, path)
    return torch.load(path, weights_only=True)["latents"].to(trainer.device)


class Denoising:
    """Noised latents and the weighted error of a prediction of their noise."""

    def __init__(self, trainer: Trainer, batch: int) -> None:
        self.codes, self.noise, self.batch = latents(trainer), trainer.noise, batch

    def draw(self, rows: np.ndarray, chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(noised latents, timesteps, noise) of the rows."""
        clean = self.codes[torch.from_numpy(rows).to(self.codes.device)]
        steps = torch.randint(0, 1000, (len(rows),), generator=chance)
        # The schedule never removes a picture's mean quite; a noise with a mean of its own hides it, so that the prompt
        # and not the starting noise decides the background.
        offset = 0.1 * torch.randn(*clean.shape[:2], 1, 1, generator=chance)
        noise = (torch.randn(clean.shape, generator=chance) + offset).to(clean)
        return self.noise.add_noise(clean, noise, steps.to(clean.device)), steps.to(clean.device), noise

    def error(self, predicted: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        remaining = self.noise.alphas_cumprod.to(steps.device)[steps]
        ratio = remaining / (1 - remaining)
        return ((predicted.float() - noise).square().mean((1, 2, 3)) * ratio.clamp(max=5) / ratio).mean()


def train_unet(trainer: Trainer, steps: int, batch: int, peak: float) -> None:
    torch.manual_seed(1)
    unet, text_encoder = build_unet(), build_text_encoder(len(trainer.tokenizer))
    with_fast_attention(unet, trainer.device)
    task, examples = Denoising(trainer, batch), trainer.examples

    def loss(rows: np.random.Generator, chance: torch.Generator) -> Tensor:
        picked = rows.integers(len(examples), size=batch)
        noised, times, noise = task.draw(picked, chance)
        words = text_encoder(examples.prompts(picked, 0.12, chance)).last_hidden_state
        return task.error(unet(noised, times, words).sample, noise, times)

    trainer.run("unet", {"unet": unet, "text_encoder": text_encoder}, loss, steps, batch, peak)


def frozen_base(trainer: Trainer) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    unet, text_encoder = build_unet(), build_text_encoder(len(trainer.tokenizer))
    with_fast_attention(unet, trainer.device)
    return trainer.trained("unet", "unet", unet), trainer.trained("unet", "text_encoder", text_encoder)


def train_controlnet(kind: str) -> Callable[[Trainer, int, int, float], None]:
    def train(trainer: Trainer, steps: int, batch: int, peak: float) -> None:
        torch.manual_seed(2)
        unet, text_encoder = frozen_base(trainer)
        net = build_controlnet(unet)
        with_fast_attention(net, trainer.device)
        if kind != "canny" and (canny := trainer.checkpoint("canny")):
            net.load_state_dict(canny["average"]["net"])  # drawing where a map says is half of every control
        task, examples = Denoising(trainer, batch), trainer.examples

        def loss(rows: np.random.Generator, chance: torch.Generator) -> Tensor:
            picked = rows.integers(len(examples), size=batch)
            if kind == "openpose":
                people = rows.choice(examples.with_person, size=batch * 3 // 4)
                picked[: len(people)] = people
            noised, times, noise = task.draw(picked, chance)
            with torch.no_grad():
                words = text_encoder(examples.prompts(picked, 0.3, chance)).last_hidden_state
            down, middle = net(noised, times, words, examples.images(picked, kind), return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return task.error(unet(noised, times, words, **residuals).sample, noise, times)

        trainer.run(kind, {"net": net}, loss, steps, batch, peak)

    return train


def train_ip_adapter(trainer: Trainer, steps: int, batch: int, peak: float) -> None:
    torch.manual_seed(3)
    unet, text_encoder = frozen_base(trainer)
    adapter, image_encoder = attach_ip_adapter(unet), build_image_encoder()
    task, examples = Denoising(trainer, batch), trainer.examples
    mean, std = (torch.tensor(values, device=trainer.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))

    def loss(rows: np.random.Generator, chance: torch.Generator) -> Tensor:
        picked = rows.integers(len(examples), size=batch)
        noised, times, noise = task.draw(picked, chance)
        with torch.no_grad():
            words = text_encoder(examples.prompts(picked, 0.5, chance, "colorless_caption")).last_hidden_state
        style = image_encoder((examples.images(picked, "reference") - mean) / std).image_embeds
        style = style * torch.rand(batch, 1, generator=chance).gt(0.1).to(style)
        predicted = unet(noised, times, words, added_cond_kwargs={"image_embeds": [style[:, None]]}).sample
        return task.error(predicted, noise, times)

    trainer.run("ip_adapter", {"adapter": adapter, "image_encoder": image_encoder}, loss, steps, batch, peak)


STAGES = {
    "vae": train_vae,
    "unet": train_unet,
    **{kind: train_controlnet(kind) for kind in CONTROLS},
    "ip_adapter": train_ip_adapter,
}


# -- the result --------------------------------------------------------------------------------------------------------


def export(trainer: Trainer, folder: Path) -> None:
    """Write what is trained as a diffusers folder in fp16; parts that are not trained yet are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    unet, text_encoder = frozen_base(trainer)
    vae = trainer.trained("vae", "vae", build_vae())
    codes = torch.load(trainer.work / f"latents-{trainer.example_count}.pt", weights_only=True)
    vae.register_to_config(scaling_factor=codes["scaling_factor"])
    write_tokenizer(folder / "tokenizer")
    for name, part in {"unet": unet, "text_encoder": text_encoder, "vae": vae}.items():
        part.half().save_pretrained(folder / name)
    # transformers 5.6 flattened CLIPTextModel; with the prefix of SD 1.5's files every release reads the weights.
    words = text_encoder.state_dict().items()
    words = {f"text_model.{key.removeprefix('text_model.')}": value.contiguous() for key, value in words}
    save_file(words, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    # diffusers derives this one anew and warns when it is told.
    config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    del config["block_out_channels"]
    (folder / "vae" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    scheduler = DPMSolverMultistepScheduler(**NOISE_SCHEDULE, steps_offset=1)
    scheduler.save_pretrained(folder / "scheduler")
    for kind in CONTROLS:
        if trainer.checkpoint(kind):
            trainer.trained(kind, "net", build_controlnet(unet)).half().save_pretrained(folder / "controlnet" / kind)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    if trainer.checkpoint("ip_adapter"):
        export_ip_adapter(trainer, unet.float(), folder)
        index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(p.stat().st_size for p in folder.rglob('*') if p.is_file()) / 1e6:.2f} MB in {folder}")


def export_ip_adapter(trainer: Trainer, unet: UNet2DConditionModel, folder: Path) -> None:
    """The adapter in the key layout of the published IP-Adapters, its encoder beside it."""
    adapter = trainer.trained("ip_adapter", "adapter", attach_ip_adapter(unet))
    encoder = trainer.trained("ip_adapter", "image_encoder", build_image_encoder())
    encoder.half().save_pretrained(folder / "image_encoder")
    CLIPImageProcessor(
        size={"shortest_edge": REFERENCE_SIZE}, crop_size={"height": REFERENCE_SIZE, "width": REFERENCE_SIZE}
    ).save_pretrained(folder / "feature_extractor")
    projection, tensors = adapter["projection"], {}
    for ours, theirs in {"image_embeds": "proj", "norm": "norm"}.items():
        for name, value in getattr(projection, ours).named_parameters():
            tensors[f"image_proj.{theirs}.{name}"] = value
    for number, key in enumerate(_cross_attention(unet)):
        processor = adapter["attention"][key]
        for name in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{name}.weight"] = getattr(processor, name)[0].weight
    (folder / "ip_adapter").mkdir(exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in tensors.items()}, folder / "ip_adapter" / "style.safetensors")


def _cross_attention(unet: UNet2DConditionModel) -> Iterator[str]:
    return (name.replace(".", "/") for name in unet.attn_processors if name.endswith("attn2.processor"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("stages", nargs="+", choices=[*STAGES, "all", "export"])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints; may be deleted afterwards")
    parser.add_argument("--steps", type=int, help="steps in all of the named stages (default: the plan)")
    parser.add_argument("--examples", type=int, default=24_000, help="scenes to draw (default 24000, about 2.5 GB)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "assets" / "demo_model")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.work, args.device, args.examples)
    for name in [*STAGES, "export"] if "all" in args.stages else args.stages:
        if name == "export":
            export(trainer, args.output)
        else:
            steps, batch, peak = PLAN[name]
            STAGES[name](trainer, args.steps or steps, batch, peak)


if __name__ == "__main__":
    main()
