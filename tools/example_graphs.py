"""The example graphs, once: as API prompts with the column of each node on the canvas.

`write_workflows.py` makes the files in workflows/ from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.modality import Modality

Link = list  # [node id, output index], as in ComfyUI's API format


@dataclass(frozen=True)
class ExampleGraph:
    """A graph: nodes in API format by id, and the column of each on the canvas (below those named before it)."""

    title: str
    nodes: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, int]

    @property
    def name(self) -> str:
        """The title as the API twin's file is called."""
        return self.title.lower().replace(" ", "_")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _control(kind: str, image: Link, detect: str, strength: float = 1.0, **more: Any) -> dict[str, Any]:
    common = {
        "detect": detect,
        "strength": strength,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "resize": "crop",
        "enabled": True,
    }
    return node(f"ControlStack{kind}", image=image, **common, **more)


def _request(prompt: str, **more: Any) -> dict[str, Any]:
    settings = {
        "prompt": prompt,
        "negative_prompt": "",
        "width": 128,
        "height": 128,
        "steps": 21,
        "guidance_scale": 4.0,
        "seed": 1,
        "batch_size": 1,
        "clip_skip": 0,
        "denoise": 1.0,
    }
    return node("ControlStackRequest", **settings, **more)


def _generate(request: Link, prefix: str, **more: Any) -> dict[str, dict[str, Any]]:
    found = dict.fromkeys(("vae_name", "text_encoder_1", "text_encoder_2"), "automatic")
    model = {"model_name": "demo (embedded)", "precision": "auto", "offload": "auto", **found, **more}
    return {
        "20": node("ControlStackLoadModel", **model),
        "21": node("ControlStackGenerateLocal", model=["20", 0], request=request),
        "22": node("SaveImage", images=["21", 0], filename_prefix=prefix),
    }


_END = {"10": 2, "20": 3, "21": 3, "22": 3}
_CANNY = {"low_threshold": 100, "high_threshold": 200}

CANNY = ExampleGraph(
    "Canny on this machine",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "local", **_CANNY),
        "3": node("PreviewImage", images=["2", 1]),
        "10": _request("a purple person with arms up right of a yellow star on a white background", controls=["2", 0]),
        **_generate(["10", 0], "controlstack_canny"),
    },
    {"1": 0, "2": 1, "3": 1, **_END},
)

THREE = ExampleGraph(
    "Three controls stacked",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "local", strength=0.7, **_CANNY),
        "3": node("LoadImage", image="controlstack_depth.png"),
        "4": _control("Depth", ["3", 0], "none", strength=0.7, controls=["2", 0]),
        "5": node("LoadImage", image="controlstack_skeleton.png"),
        "6": _control("OpenPose", ["5", 0], "none", strength=0.7, controls=["4", 0]),
        "7": node(
            "ControlStackScheduler",
            scheduler="DPMSolverMultistepScheduler",
            use_karras_sigmas=True,
            algorithm_type="default",
        ),
        "10": _request(
            "a blue person with arms up right of a pink star on a mint background",
            controls=["6", 0],
            scheduler=["7", 0],
        ),
        "11": node("ControlStackExplain", request=["10", 0], target="Local SD 1.5"),
        "12": node(
            "ControlStackControlNetModels", **dict.fromkeys((modality.value for modality in Modality), "automatic")
        ),
        **_generate(["10", 0], "controlstack_three", nets=["12", 0]),
    },
    {"1": 0, "2": 1, "3": 0, "4": 1, "5": 0, "6": 1, **_END, "7": 2, "11": 2, "12": 2},
)

STYLE = ExampleGraph(
    "Style reference with control",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "local", **_CANNY),
        "3": node("LoadImage", image="controlstack_style.png"),
        "4": node("ControlStackReference", image=["3", 0], scale=1.0, kind="style", start_percent=0.0, end_percent=1.0),
        "10": _request("a person with arms up right of a star", controls=["2", 0], references=["4", 0]),
        **_generate(["10", 0], "controlstack_style"),
    },
    {"1": 0, "2": 1, "3": 0, "4": 1, **_END},
)

EXAMPLE_GRAPHS = (CANNY, THREE, STYLE)
