"""Segmentation maps: one flat color per class, or per connected region."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.modality import Modality
from ..ade20k import COLORS
from ..detector import Detector
from ..host import Host
from ..networks.methods import IMAGENET_DEVIATION, IMAGENET_MEAN, PredictionMethod, standardize
from ..networks.transformers import load_network
from ..parameters import ChoiceParameter, Value
from ..pixels import connected_regions
from ..resolution import TRAINED_RESOLUTION
from ..seeds import SEED, generator
from ..weights.declarations import Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ADE20K, PER_REGION = "ade20k", "per region"
PALETTE = ChoiceParameter(
    "colors",
    (ADE20K, PER_REGION),
    "ade20k: the color of the class, e.g. cyan for sky, as ControlNet 1.1 expects. per region: a random color "
    "for each "
    "connected region, chosen by seed, as Segment Anything shows them and the SDXL union nets expect.",
)


class SceneParsing(PredictionMethod):
    """A network that assigns each pixel one of the 150 classes of ADE20K."""

    parameters = (PALETTE, SEED, TRAINED_RESOLUTION)
    classes = True
    network_class: ClassVar[str]

    @abstractmethod
    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        """The score of each class, [batch, 150, any height, any width], for standardized images."""

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        from torch.nn.functional import interpolate

        scores = self.scores(network, standardize(images, IMAGENET_MEAN, IMAGENET_DEVIATION)).float()
        return interpolate(scores, images.shape[-2:], mode="bilinear").argmax(1, keepdim=True)

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        classes = self.predict(image, host, self.weights, int(values["resolution"]))[:, 0].long()
        if values["colors"] == ADE20K:
            return torch.tensor(list(COLORS)).view(-1, 3).float().div(255)[classes]
        return torch.stack([region_colors(frame, generator(values, index)) for index, frame in enumerate(classes)])


def region_colors(classes: Tensor, random: torch.Generator) -> Tensor:
    """A random color for each connected region of one class: [height, width, 3] for class numbers [height, width]."""
    import numpy as np
    import torch

    regions = np.zeros(classes.shape, np.int32)
    count = 0
    for number in classes.unique():
        found, labels = connected_regions((classes == number).numpy())
        regions += np.where(labels > 0, labels + count, 0)
        count += found - 1
    # No color is black: black means that nothing was found.
    return (torch.rand(count + 1, 3, generator=random) * 0.9 + 0.1)[torch.from_numpy(regions).long()]


class UperNet(SceneParsing):
    """UPerNet on ConvNeXt-S (Xiao et al. 2018, Liu et al. 2022), which diffusers documents for ControlNets."""

    name = "upernet"
    weights = (
        # The commit and the exact sizes are not known. The stated SHA-256 of the tensors is
        # 76c163aa531ab7edfb3a77bbcc039e340645aa0ffe2b0ffcfc68755f550c76ea.
        Weights("openmmlab/upernet-convnext-small", "main", "config.json", 13_000),
        Weights("openmmlab/upernet-convnext-small", "main", "pytorch_model.bin", 328_000_000),
    )
    trained_at = 512
    multiple = 32
    bytes_per_pixel = 6000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        from transformers import UperNetForSemanticSegmentation

        return load_network(UperNetForSemanticSegmentation, *files)

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images).logits


class OneFormer(SceneParsing):
    """OneFormer on Swin-T (Jain et al. 2023), the family that ControlNet 1.1 recommends for segmentation maps."""

    name = "oneformer"
    weights = (
        Weights(
            "shi-labs/oneformer_ade20k_swin_tiny",
            "05f2812b1eccf9909b3897777450f8d68148cafc",
            "config.json",
            84_284,
            "091cbc7c980128ae63b2a15d882923f326f85926ef163adad00c24bd90228896",
        ),
        Weights(
            "shi-labs/oneformer_ade20k_swin_tiny",
            "05f2812b1eccf9909b3897777450f8d68148cafc",
            "pytorch_model.bin",
            203_389_501,
            "909b07dbf4129c2bbb8df4498e35dcd46f305e3ec45329d3ff6d4f0360de27f3",
        ),
    )
    trained_at = 640
    multiple = 32
    bytes_per_pixel = 8000
    # The CLIP tokens of "the task is semantic".
    task: ClassVar[tuple[int, ...]] = (49406, 518, 10549, 533, 29119, 1550, 49407)

    @staticmethod
    def build(*files: Path) -> nn.Module:
        from transformers import OneFormerForUniversalSegmentation

        return load_network(OneFormerForUniversalSegmentation, *files)

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        import torch

        config: Any = network.config
        task = torch.zeros(len(images), config.task_seq_len, device=images.device)
        task[:, : len(self.task)] = task.new_tensor(self.task)
        output = network(images, task_inputs=task)
        # The last class is "no object".
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.sigmoid())


class SegFormer(SceneParsing):
    """SegFormer-B5 (Xie et al. 2021): the most detailed of the three. Its weights are for non-commercial use only."""

    name = "segformer"
    weights = (
        Weights(
            "nvidia/segformer-b5-finetuned-ade-640-640",
            "739f5d4692954e4a185eac280dec1ba5a7d52f1d",
            "config.json",
            7_000,
        ),
        Weights(
            "nvidia/segformer-b5-finetuned-ade-640-640",
            "739f5d4692954e4a185eac280dec1ba5a7d52f1d",
            "pytorch_model.bin",
            339_000_000,
        ),
    )
    trained_at = 640
    multiple = 32
    bytes_per_pixel = 8000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        from transformers import SegformerForSemanticSegmentation

        return load_network(SegformerForSemanticSegmentation, *files)

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images).logits


SEGMENTATION = Detector(
    Modality.SEGMENTATION,
    "A flat color for each class (sky, wall, person...), or for each connected region.",
    (UperNet(), OneFormer(), SegFormer()),
)
