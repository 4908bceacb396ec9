"""Depth maps: near is white and far is black. Each image uses the full range."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import GenerationFailed, ModelUnreadable
from ...core.images import to_rgb
from ...core.modality import Modality
from ..detector import Detector
from ..host import Host
from ..networks.controlnet_aux import network_class, network_module
from ..networks.methods import IMAGENET_DEVIATION, IMAGENET_MEAN, PredictionMethod, standardize
from ..networks.transformers import load_network
from ..parameters import ChoiceParameter, Value
from ..resolution import TRAINED_RESOLUTION
from ..weights.declarations import Weights, annotators_file
from ..weights.tensors import load_state, read_state, without_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

_FLAT = 1e-6  # relative to the largest value: the float32 noise of a constant depth


class Depth(PredictionMethod):
    """A network that predicts depth."""

    def needed(self, **values: Value) -> Sequence[Weights]:
        """The files that are needed with these parameter values."""
        return self.weights

    def nearness(self, prediction: Tensor) -> Tensor:
        """The map [height, width], 0 for far to 1 for near, for a prediction [height, width] of `infer`."""
        return _normalize(prediction, prediction.amin(), prediction.amax())

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        predictions = self.predict(image, host, self.needed(**values), int(values["resolution"]))[:, 0]
        if not bool(predictions.isfinite().all()):
            raise GenerationFailed(
                f"The network '{self.name}' returned NaN or infinite depths. Its file may be damaged. Move it "
                f"elsewhere and run again, or choose another method."
            )
        maps = predictions.new_empty(predictions.shape)
        for index, prediction in enumerate(predictions):
            if _is_flat(prediction):
                maps[index] = 0.5
                host.warn(f"The depth is the same everywhere in image {index + 1} of {len(image)}: its map is gray.")
            else:
                maps[index] = self.nearness(prediction).clamp(0, 1)
        return to_rgb(maps[..., None])


def _depth_anything(name: str, revision: str, config: tuple[int, str], tensors: tuple[int, str]) -> tuple[Weights, ...]:
    files = (("config.json", config), ("model.safetensors", tensors))
    return tuple(Weights(f"depth-anything/{name}", revision, file, size, sha256) for file, (size, sha256) in files)


_SIZES: Mapping[str, Sequence[Weights]] = {
    "small": _depth_anything(
        "Depth-Anything-V2-Small-hf",
        "5426e4f0f36572d16453bbda7a8389317b1bef99",
        (950, "c56698d3643dde1f83ea2212759e6b31a22b8f827246a36dd007ee8a22b3ff75"),
        (99_173_660, "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70"),
    ),
    "base": _depth_anything(
        "Depth-Anything-V2-Base-hf", "b1958afc87fb45a9e3746cb387596094de553ed8", (950, ""), (390_000_000, "")
    ),
    "large": _depth_anything(
        "Depth-Anything-V2-Large-hf",
        "7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
        (950, ""),
        (1_341_322_868, "4e01e34ed5549b529b70b92d53226bc370f03041977b390d3dde45d47f516cf9"),
    ),
}


class DepthAnything(Depth):
    """Depth Anything V2 (Yang et al. 2024): sharp outlines, even of thin objects. `sizes` has the files per variant."""

    name = "depth anything v2"
    parameters = (
        ChoiceParameter(
            "size",
            tuple(_SIZES),
            "depth anything v2: size of the network. small (99 MB) is free for any use (Apache-2.0). base (0.4 GB) and "
            "large (1.3 GB) show more detail and are for non-commercial use only (CC-BY-NC-4.0).",
        ),
        TRAINED_RESOLUTION,
    )
    weights = tuple(_SIZES["small"])
    sizes: Mapping[str, Sequence[Weights]] = _SIZES
    trained_at = 518
    multiple = 14
    bytes_per_pixel = 2500
    half = True

    def needed(self, **values: Value) -> Sequence[Weights]:
        return self.sizes[str(values["size"])]

    @staticmethod
    def build(*files: Path) -> nn.Module:
        from transformers import DepthAnythingForDepthEstimation

        return load_network(DepthAnythingForDepthEstimation, *files)

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(standardize(images, IMAGENET_MEAN, IMAGENET_DEVIATION)).predicted_depth[:, None]


class Midas(Depth):
    """MiDaS (Ranftl et al. 2021, DPT hybrid): soft and robust. The first depth ControlNets were trained on its maps."""

    name = "midas"
    weights = (annotators_file("midas", "dpt_hybrid-midas-501f0c75.pt", 493_000_000),)
    trained_at = 384
    multiple = 32
    bytes_per_pixel = 3000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("midas.midas.dpt_depth", "DPTDepthModel")(backbone="vitb_rn50_384", non_negative=True)
        state: Any = read_state(files[0])
        load_state(network, state.get("model", state), files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images * 2 - 1)[:, None]


class Zoe(Depth):
    """ZoeDepth (Bhat et al. 2023): depth in metres. The farthest 15 % of the pixels become black."""

    name = "zoe"
    weights = (annotators_file("zoedepth", "ZoeD_M12_N.pt", 1_443_406_099),)
    trained_at = 512
    bytes_per_pixel = 8000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        config = network_module("zoe.zoedepth.utils.config").get_config("zoedepth", "infer")
        kind: Any = network_class("zoe.zoedepth.models.zoedepth.zoedepth_v1", "ZoeDepth")
        network = kind.build_from_config(config)
        # Current versions of timm compute `relative_position_index`. ZoeDepth accepts files with missing tensors, so
        # this checks for them.
        stored: Any = read_state(files[0])["model"]
        state = {name: tensor for name, tensor in stored.items() if "relative_position_index" not in name}
        if missing := network.state_dict().keys() - state.keys():
            raise ModelUnreadable(
                f"{files[0]} lacks {len(missing)} tensors of ZoeDepth, such as {min(missing)}. Move it elsewhere. The "
                f"next run downloads the right file."
            )
        load_state(network, state, files[0])
        return network

    def infer(self, network: Any, images: Tensor) -> Tensor:
        return network.infer(images)

    def nearness(self, prediction: Tensor) -> Tensor:
        import numpy as np

        nearest, farthest = np.percentile(prediction.numpy(), (2, 85))  # torch.quantile takes at most 2^24 values
        return 1 - _normalize(prediction, prediction.new_tensor(nearest), prediction.new_tensor(farthest))


class Leres(Depth):
    """LeReS (Yin et al. 2021): much detail, for indoor scenes and distant backgrounds."""

    name = "leres"
    weights = (annotators_file("leres", "res101.pth", 531_000_000),)
    trained_at = 448
    multiple = 32
    bytes_per_pixel = 4000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("leres.leres.multi_depth_model_woauxi", "RelDepthModel")(backbone="resnext101")
        state: Any = read_state(files[0])["depth_model"]
        load_state(network, without_prefix(state), files[0])
        return network

    def infer(self, network: Any, images: Tensor) -> Tensor:
        return -network.depth_model(standardize(images, IMAGENET_MEAN, IMAGENET_DEVIATION))


def _normalize(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Scale values from `low`..`high` to 0..1. If both are the same, the result is a step."""
    return (values - low) / (high - low).clamp(min=1e-12)


def _is_flat(values: Tensor) -> bool:
    return bool(values.amax() - values.amin() <= _FLAT * values.abs().amax())


DEPTH = Detector(
    Modality.DEPTH,
    "The depth of the scene: the nearest point white, the farthest black.",
    (DepthAnything(), Midas(), Zoe(), Leres()),
)
