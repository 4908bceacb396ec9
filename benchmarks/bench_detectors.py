"""Detectors compared with the bare network, OpenCV and other packages, on the same images and weights."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from controlstack.benchmarks.peer_detectors import (
    PACK_VARIABLE,
    comfyui_controlnet_aux,
    controlnet_aux,
    controlnet_aux_offline,
)
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.canny import CANNY
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks.runtime import open_network
from controlstack.tests.preprocessors.line_networks import LINE_NETWORKS, LineNetwork
from skimage import data
from torch import Tensor

ROUNDS = 5
THREADS = 2
NETWORKS = ("hed", "pidinet", "teed", "mlsd")

OFFLINE = """
import time, torch
from pathlib import Path
from controlstack.core.errors import ModelNotFound
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.detectors.softedge import Hed
from controlstack.preprocessors.weights.store import obtain
started = time.perf_counter()
try:
    obtain(Hed.weights[0], PlainHost(None, [Path("nowhere")]))
except ModelNotFound:
    print(time.perf_counter() - started)
"""


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def medians(*runs: Callable[[], object]) -> list[float]:
    """The median seconds of each run, in interleaved rounds, so that a busy machine affects all alike."""
    for run in runs:
        run()
    rounds = [[seconds(run) for run in runs] for _ in range(ROUNDS)]
    return [statistics.median(side) for side in zip(*rounds, strict=True)]


def photos() -> np.ndarray:
    """Sixteen views of a photo, uint8 [16, 1024, 1024, 3]."""
    large = cv2.resize(data.astronaut(), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(large, 37 * shift, 1) for shift in range(16)])


def second_run(network: LineNetwork, image: Tensor, host: PlainHost) -> tuple[float, float]:
    """The seconds of a detector whose weights are loaded, and of its network alone."""
    method = network.random_method()
    detector = Detector(Modality.SOFTEDGE, "", (method,))
    values = {parameter.name: parameter.default for parameter in method.parameters}
    files = tuple(host.weight_folders[0] / weights.path for weights in method.weights)
    module = open_network(network.method.build, files, host).managed.module
    pixels = image.movedim(-1, 1).contiguous()
    if network is LINE_NETWORKS["mlsd"]:
        pixels = torch.cat((pixels, pixels[:, :1]), 1)

    def bare() -> None:
        with torch.no_grad():
            module(pixels)

    ours, alone = medians(lambda: detector.detect(image, host, values), bare)
    return ours, alone


def bench_networks(folder: Path, image: Tensor) -> None:
    host = PlainHost(PlainMemory(torch.device("cpu")), [folder])
    print(f"Second run on 512x512, random weights, CPU with {THREADS} threads, medians of {ROUNDS} interleaved rounds")
    print("| network | alone | detector | ratio |")
    print("|---|---|---|---|")
    for name in NETWORKS:
        LINE_NETWORKS[name].save(folder)
        ours, alone = second_run(LINE_NETWORKS[name], image, host)
        print(f"| {name} | {alone * 1000:.0f} ms | {ours * 1000:.0f} ms | {ours / alone:.2f} |")
    print("The bar is 1.1.\n")


def bench_peers(folder: Path, images: np.ndarray, single: Tensor) -> None:
    file = folder / "images.npy"
    np.save(file, images)
    host = PlainHost(PlainMemory(torch.device("cpu")), [folder])
    batch = torch.from_numpy(images).float() / 255
    hed = Detector(Modality.HED, "", (LINE_NETWORKS["hed"].random_method(),))
    ours, opencv = medians(
        lambda: CANNY.detect(batch, host, {}), lambda: [cv2.Canny(image, 100, 200) for image in images]
    )
    (our_hed,) = medians(lambda: hed.detect(single, host, {"safe": False}))
    package = controlnet_aux(file, folder, ROUNDS, THREADS)
    pack = comfyui_controlnet_aux(file, folder, ROUNDS, THREADS)
    print("| | ControlStack | OpenCV alone | controlnet_aux | comfyui_controlnet_aux |")
    print("|---|---|---|---|---|")
    theirs = f"{pack['canny'] * 1000:.0f} ms" if pack else f"skipped: {PACK_VARIABLE} is not set"
    print(
        f"| Canny, 16 of 1024x1024 | {ours * 1000:.0f} ms | {opencv * 1000:.0f} ms | {package['canny'] * 1000:.0f} ms "
        f"| {theirs} |"
    )
    theirs = f"{pack['hed anew'] * 1000:.0f} ms, reloads each time" if pack else "skipped"
    print(
        f"| HED, one of 512x512, again | {our_hed * 1000:.0f} ms | | {package['hed'] * 1000:.0f} ms kept, "
        f"{package['hed anew'] * 1000:.0f} ms reloaded | {theirs} |"
    )
    print(
        f"Canny takes {ours / opencv:.2f} x OpenCV's time (bar 1.2) and is {package['canny'] / ours:.2f} x as fast as "
        f"CannyDetector (bar 1.3).\n"
    )


def bench_offline() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hub = f"http://127.0.0.1:{free.getsockname()[1]}"  # nothing listens there
    result = subprocess.run(
        [sys.executable, "-I", "-c", OFFLINE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_ENDPOINT": hub, "NO_PROXY": "127.0.0.1"},
    )
    print("| a hub that cannot be reached | ControlStack | controlnet_aux |")
    print("|---|---|---|")
    print(f"| until the error | {float(result.stdout):.2f} s | {controlnet_aux_offline(hub):.1f} s |")
    print("The bar is 1 s.")


def main() -> None:
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    images = photos()
    image = torch.from_numpy(images[:1, :512, :512]).float() / 255
    with tempfile.TemporaryDirectory() as home:
        bench_networks(Path(home), image)
        bench_peers(Path(home), images, image)
    bench_offline()


if __name__ == "__main__":
    main()
