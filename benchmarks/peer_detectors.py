"""Other packages' detectors, each in a process of its own, because their imports change the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from controlstack.workshop.comfyui import find_comfyui

PACK_VARIABLE = "COMFYUI_CONTROLNET_AUX_PATH"

_CLOCK = """
import json, statistics, sys, time
import numpy as np, torch, cv2
images, folder, rounds = np.load(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(int(sys.argv[4])); cv2.setNumThreads(int(sys.argv[4]))

def seconds(run):
    times = []
    for _ in range(rounds):
        started = time.perf_counter(); run(); times.append(time.perf_counter() - started)
    return statistics.median(times)
"""

_CONTROLNET_AUX = """
from controlnet_aux import CannyDetector, HEDdetector
side, canny = images.shape[1], CannyDetector()
size = {"detect_resolution": side, "image_resolution": side}
answer = {"canny": seconds(lambda: [canny(image, output_type="np", **size) for image in images])}
hed = HEDdetector.from_pretrained(folder)
answer["hed"] = seconds(lambda: hed(images[0][:512, :512], output_type="np"))
answer["hed anew"] = seconds(lambda: HEDdetector.from_pretrained(folder)(images[0][:512, :512], output_type="np"))
"""

# Run in ComfyUI's folder, as a node of the pack is.
_PACK = """
import importlib.util
home = {home!r}
sys.path.insert(0, {comfyui!r})
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
spec = importlib.util.spec_from_file_location("aux_pack", home + "/__init__.py", submodule_search_locations=[home])
pack = sys.modules["aux_pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
image = torch.from_numpy(images).float() / 255

def node(name, image, **inputs):
    node = pack.NODE_CLASS_MAPPINGS[name]()
    return getattr(node, node.FUNCTION)(image, **inputs)

run_canny = lambda: node("CannyEdgePreprocessor", image, low_threshold=100, high_threshold=200, resolution=1024)
answer = {{"canny": seconds(run_canny)}}
run_hed = lambda: node("HEDPreprocessor", image[:1, :512, :512], safe="disable", resolution=512)
answer["hed anew"] = seconds(run_hed)
"""

_OFFLINE = """
import sys, time
from controlnet_aux import HEDdetector
started = time.perf_counter()
try:
    HEDdetector.from_pretrained("lllyasviel/Annotators")
except Exception:
    pass
answer = {"offline": time.perf_counter() - started}
"""


def controlnet_aux(images: Path, weights: Path, rounds: int, threads: int) -> dict[str, float]:
    """Seconds of the package's Canny on all images, and of its HED on one of 512x512, kept and reloaded."""
    return _run(_CLOCK + _CONTROLNET_AUX, images, weights / "lllyasviel" / "Annotators", rounds, threads)


def comfyui_controlnet_aux(images: Path, weights: Path, rounds: int, threads: int) -> dict[str, float]:
    """The same for the pack in the folder COMFYUI_CONTROLNET_AUX_PATH; empty if that is not set."""
    home = os.environ.get(PACK_VARIABLE)
    if not home:
        return {}
    code = _CLOCK + _PACK.format(home=str(Path(home).resolve()), comfyui=str(find_comfyui()))
    return _run(code, images, weights, rounds, threads, AUX_ANNOTATOR_CKPTS_PATH=str(weights))


def controlnet_aux_offline(hub: str) -> float:
    """Seconds until the package gives up on a hub that cannot be reached."""
    return _run(_OFFLINE, HF_ENDPOINT=hub)["offline"]


def _run(code: str, *arguments: object, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-c", f"{code}\nimport json; print(json.dumps(answer))", *map(str, arguments)]
    settings = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    # Not in this clone's folder: its `nodes` would shadow ComfyUI's.
    result = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=find_comfyui())
    if result.returncode:
        raise SystemExit(f"A peer failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])
