"""Segmentation maps are flat colors of a published table, of the classes that the library itself finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from controlstack.preprocessors.ade20k import COLORS
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.segmentation import (
    SEGMENTATION,
    OneFormer,
    SceneParsing,
    SegFormer,
    UperNet,
    region_colors,
)
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.weights.declarations import Weights
from controlstack.tests.preprocessors.fake_network import with_network
from torch import nn
from torch.nn.functional import one_hot
from transformers import (
    ConvNextConfig,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

pytestmark = pytest.mark.slow

WALL, SKY, PERSON = 0, 2, 12
PALETTE = torch.tensor(list(COLORS)).view(150, 3)


def segment(method: SceneParsing, image: torch.Tensor, host: PlainHost, **given: object) -> torch.Tensor:
    maps = Detector(SEGMENTATION.modality, "", (method,)).detect(image, host, given)
    assert maps.shape == image.shape and maps.dtype == torch.float32
    return maps


class Halves(SceneParsing):
    """Sees a wall on the left, the sky on the right, and a person in the lower right corner."""

    name = "halves"
    trained_at = 64
    multiple = 16
    bytes_per_pixel = 100

    def scores(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        numbers = torch.full((len(images), height, width), WALL)
        numbers[:, :, width // 2 :] = SKY
        numbers[:, height * 3 // 4 :, width * 3 // 4 :] = PERSON
        return one_hot(numbers, 150).movedim(-1, 1).float()


def test_the_colors_are_the_published_ones() -> None:
    assert len(COLORS) == 3 * 150
    assert PALETTE[[WALL, SKY, PERSON, 149]].tolist() == [[120, 120, 120], [6, 230, 230], [150, 5, 61], [92, 0, 255]]


@pytest.mark.parametrize("size", [(8, 8), (61, 97), (200, 128)])
def test_a_map_has_colors_of_the_table_and_nothing_between(size: tuple[int, int], host: PlainHost) -> None:
    maps = segment(with_network(Halves, nn.Identity()), torch.rand(3, *size, 3), host)
    height, width = size
    assert {tuple(color) for color in (maps * 255).round().long().view(-1, 3).tolist()} == {
        tuple(PALETTE[number].tolist()) for number in (WALL, SKY, PERSON)
    }
    for map_ in maps:
        assert torch.equal((map_[0, 0] * 255).round().long(), PALETTE[WALL])
        assert torch.equal((map_[0, width - 1] * 255).round().long(), PALETTE[SKY])
        assert torch.equal((map_[height - 1, width - 1] * 255).round().long(), PALETTE[PERSON])


def test_areas_of_one_class_that_do_not_touch_have_colors_of_their_own() -> None:
    numbers = torch.zeros(40, 60, dtype=torch.long)
    numbers[5:15, 5:15] = PERSON
    numbers[5:15, 30:40] = PERSON
    map_ = region_colors(numbers, torch.Generator().manual_seed(0))
    one, other, around = map_[10, 10], map_[10, 35], map_[30, 30]
    assert len(map_.view(-1, 3).unique(dim=0)) == 3
    assert not torch.equal(one, other) and not torch.equal(one, around)
    assert map_.amin() >= 0.1, "black is where nothing was found"


def test_region_colors_repeat_with_the_seed_and_change_with_it(host: PlainHost) -> None:
    method, image = with_network(Halves, nn.Identity()), torch.rand(2, 64, 64, 3)
    first, again, other = (segment(method, image, host, colors="per region", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[1], other[0]), "image i uses seed + i"


# The networks of transformers


def lively(network: nn.Module) -> nn.Module:
    """With weights to which the image matters; as they are made all pixels are of one class."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return network.eval()


def tiny_upernet() -> nn.Module:
    backbone = ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        use_auxiliary_head=True,
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        num_labels=150,
    )
    return lively(UperNetForSemanticSegmentation(config))


def tiny_segformer() -> nn.Module:
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=150,
    )
    return lively(SegformerForSemanticSegmentation(config))


def tiny_oneformer() -> nn.Module:
    backbone = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = OneFormerConfig(
        backbone_config=backbone,
        num_labels=150,
        num_queries=8,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        num_attention_heads=2,
        dim_feedforward=16,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        use_task_norm=True,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_proj_layers=1,
        text_encoder_context_length=8,
        text_encoder_n_ctx=2,
        text_encoder_vocab_size=32,
        query_dec_layers=1,
        is_training=False,
    )
    return lively(OneFormerForUniversalSegmentation(config))


def expected_upernet(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    processor = SegformerImageProcessor(do_resize=False, do_rescale=False)
    pixels = processor([frame.movedim(-1, 0) for frame in image], return_tensors="pt").pixel_values
    return torch.stack(processor.post_process_semantic_segmentation(network(pixels), [image.shape[1:3]] * len(image)))


def expected_oneformer(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    task = torch.zeros(len(image), network.config.task_seq_len)
    # What CLIP's tokenizer makes of "the task is semantic", padding taken out, as the processor hands it over.
    task[:, :7] = torch.tensor((49406, 518, 10549, 533, 29119, 1550, 49407))
    answer = network(((image - mean) / deviation).movedim(-1, 1), task_inputs=task)
    post_process = OneFormerImageProcessor.post_process_semantic_segmentation
    return torch.stack(post_process(None, answer, [tuple(image.shape[1:3])] * len(image)))


NETWORKS = {
    "upernet": (UperNet, tiny_upernet, expected_upernet),
    "segformer": (SegFormer, tiny_segformer, expected_upernet),
    "oneformer": (OneFormer, tiny_oneformer, expected_oneformer),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_are_those_that_transformers_finds(name: str, tmp_path: Path, host: PlainHost) -> None:
    method, make, expect = NETWORKS[name]
    network = make()
    network.save_pretrained(tmp_path / "tiny")
    files = tuple(Weights("tiny", "main", file, 1) for file in ("config.json", "model.safetensors"))
    tiny = type("Tiny", (method,), {"weights": files})()
    host.weight_folders = (tmp_path,)

    image = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    image[:, :, 40:] *= 0.1
    maps = segment(tiny, image, host, resolution=64)
    with torch.no_grad():
        numbers = expect(network, image)
    assert len(numbers.unique()) > 3
    agreement = ((maps * 255).round().long() == PALETTE[numbers]).all(-1).float().mean()
    assert agreement > 0.999


def test_oneformer_is_told_its_task_in_clip_s_tokens(host: PlainHost) -> None:
    network, told = tiny_oneformer(), []
    network.register_forward_pre_hook(lambda module, args, named: told.append(named["task_inputs"]), with_kwargs=True)
    segment(with_network(OneFormer, network), torch.rand(1, 64, 64, 3), host, resolution=64)
    # "the task is semantic", as CLIP's tokenizer splits it: start, the, task, is, seman, tic, end.
    assert told[0][0, :8].tolist() == [49406, 518, 10549, 533, 29119, 1550, 49407, 0]
    assert told[0].shape == (1, network.config.task_seq_len) and not told[0][0, 8:].any()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (57, 31), (40, 640)])
def test_every_network_takes_every_size(name: str, size: tuple[int, int], host: PlainHost) -> None:
    method, make, _ = NETWORKS[name]
    segment(with_network(method, make(), trained_at=64), torch.rand(2, *size, 3), host)
