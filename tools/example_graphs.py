"""The example graphs, once: as API prompts with the column of each node on the canvas.

`python dev.py docs` writes the files in workflows/ from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..api_clients.registry import ENDPOINTS, find_endpoint, node_id
from ..api_clients.services.endpoint import Endpoint
from ..api_clients.services.options import declared
from ..core.modality import Modality
from ..preprocessors.detectors.registry import detector_for

Link = list  # [node id, output index], as in ComfyUI's API format


@dataclass(frozen=True)
class ExampleGraph:
    """A graph: nodes in API format by id, and the column of each on the canvas (below those named before it).

    `fetches` says that a first run fetches trained files, so that it cannot be run just to see whether it works.
    """

    title: str
    nodes: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, int]
    fetches: bool = False

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
    modality = next(modality for modality in Modality if modality.node_id == f"ControlStack{kind}")
    defaults = {parameter.name: parameter.default for parameter in detector_for(modality).parameters()}
    return node(f"ControlStack{kind}", image=image, **{**common, **defaults, **more})


def _reference(image: Link, scale: float) -> dict[str, Any]:
    return node("ControlStackReference", image=image, scale=scale, kind="style", start_percent=0.0, end_percent=1.0)


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
        "vae": "",
        "upscale": False,
    }
    return node("ControlStackRequest", **(settings | more))


def _generate(request: Link, prefix: str, tile_size: int = 0, **more: Any) -> dict[str, dict[str, Any]]:
    found = dict.fromkeys(("vae_name", "text_encoder_1", "text_encoder_2"), "automatic")
    model = {"model_name": "demo (embedded)", "precision": "auto", "offload": "auto", **found, **more}
    return {
        "20": node("ControlStackLoadModel", **model),
        "21": node(
            "ControlStackGenerateLocal",
            model=["20", 0],
            request=request,
            upscale_model="none (draw again)",
            merge_tokens=0.0,
            block_cache=0.0,
            safety_check=False,
            tile_size=tile_size,
        ),
        "22": node("SaveImage", images=["21", 0], filename_prefix=prefix),
    }


_END = {"10": 2, "20": 3, "21": 3, "22": 3}

CANNY = ExampleGraph(
    "Canny on this machine",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "local"),
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
        "2": _control("Canny", ["1", 0], "local", strength=0.7),
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
        "11": node("ControlStackExplain", request=["10", 0], target="Local SD 1.5", fields=""),
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
        "2": _control("Canny", ["1", 0], "local"),
        "3": node("LoadImage", image="controlstack_style.png"),
        "4": _reference(["3", 0], 1.0),
        "10": _request("a person with arms up right of a star", controls=["2", 0], references=["4", 0]),
        **_generate(["10", 0], "controlstack_style"),
    },
    {"1": 0, "2": 1, "3": 0, "4": 1, **_END},
)


# In tiles of the size that the model was made for. The demo model has no net for tiles, so that control is off, and a
# canny control keeps the shapes instead; with a model that has one it can be the other way round.
ENLARGE = ExampleGraph(
    "Enlarge with a tile control",
    {
        "1": node("LoadImage", image="controlstack_small.png"),
        "2": _control("Tile", ["1", 0], "local", enabled=False),
        "3": _control("Canny", ["1", 0], "local", controls=["2", 0]),
        "10": _request(
            "a pink triangle on a white background",
            width=256,
            height=256,
            denoise=0.5,
            controls=["3", 0],
            init_image=["1", 0],
        ),
        **_generate(["10", 0], "controlstack_enlarge", tile_size=128),
    },
    {"1": 0, "2": 1, "3": 1, **_END},
)


def _previewed(controls: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The control nodes, each with a preview of its map (100 added to its id)."""
    previews = {str(int(key) + 100): node("PreviewImage", images=[key, 1]) for key in controls}
    return {**controls, **previews}


def _in_columns(controls: Mapping[str, Any], rows: int, first: int = 1) -> dict[str, int]:
    """Control nodes in columns of `rows`, each with its previews in the column to its right."""
    return {
        key: first + 2 * (index // rows) + offset
        for offset, more in ((0, 0), (1, 100))
        for index, key in enumerate(str(int(key) + more) for key in controls)
    }


_PHOTO: Link = ["1", 0]
_MASK: Link = ["3", 0]
_PLAIN_SETTINGS: Mapping[Modality, Mapping[str, Any]] = {
    Modality.CANNY: {},
    Modality.LINEART: {"method": "standard"},
    Modality.SCRIBBLE: {"method": "xdog"},
    Modality.MLSD: {"method": "opencv"},
    Modality.TILE: {"reduce": 8.0},
    Modality.BLUR: {},
    Modality.GRAY: {},
    Modality.LOW_QUALITY: {},
    Modality.SHUFFLE: {},
    Modality.INPAINT: {"mask": _MASK},
    Modality.QRCODE: {"text": "ControlStack", "background": "gray"},
}


def _plain_settings(modality: Modality) -> dict[str, Any] | None:
    """Settings with which the detector needs no trained file, or None if it always needs one."""
    detector = detector_for(modality)
    for method in detector.methods:
        if not method.weights:
            chosen = {"method": method.name} if len(detector.methods) > 1 else {}
            return {**chosen, "mask": _MASK} if detector.needs_mask else chosen
    return None


def _numbered(settings: Mapping[Modality, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A control node on the photo for each modality, with ids from 10."""
    return {
        str(number): _control(modality.node_id.removeprefix("ControlStack"), _PHOTO, "local", **more)
        for number, (modality, more) in enumerate(settings.items(), start=10)
    }


# A new modality comes after those that are listed, so that the published graphs keep their order.
_others = {m: _plain_settings(m) for m in Modality if m not in _PLAIN_SETTINGS}
_PLAIN_MAPS = _numbered({**_PLAIN_SETTINGS, **{m: found for m, found in _others.items() if found is not None}})
MAPS = ExampleGraph(
    "Look at the maps",
    {
        "1": node("LoadImage", image="controlstack_photo.jpg"),
        "2": node("SolidMask", value=1.0, width=512, height=512),
        "3": node("FeatherMask", mask=["2", 0], left=250, top=250, right=250, bottom=250),
        **_previewed(_PLAIN_MAPS),
    },
    {"1": 0, "2": 0, "3": 0, **_in_columns(_PLAIN_MAPS, rows=4)},
)

_LEARNED_ORDER = (
    Modality.HED,
    Modality.SOFTEDGE,
    Modality.DEPTH,
    Modality.NORMAL,
    Modality.OPENPOSE,
    Modality.POSE,
    Modality.FACE_DETECTOR,
    Modality.SEGMENTATION,
)
_LEARNED_MAPS = _numbered({m: {} for m in (*_LEARNED_ORDER, *(m for m, found in _others.items() if found is None))})
LEARNED = ExampleGraph(
    "Maps by trained networks",
    {
        "1": node("LoadImage", image="controlstack_photo.jpg"),
        **_previewed(_LEARNED_MAPS),
        "2": node("ControlStackPreset", image=_PHOTO, preset="character", strength=1.0),
        "3": _request("a statue of an astronaut in a park", controls=["2", 0]),
        "4": node("ControlStackExplain", request=["3", 0], target="Local SD 1.5", fields=""),
    },
    {"1": 0, "2": 0, "3": 5, "4": 5, **_in_columns(_LEARNED_MAPS, rows=4)},
    fetches=True,
)

LOCAL_GRAPHS = (CANNY, THREE, STYLE, ENLARGE)
MAP_GRAPHS = (MAPS, LEARNED)

# Those that end at a service load without a key, and run without one against `dev.py fake-services`.

SIDE = 512
_REMOTE_END = {"10": 2, "20": 3, "22": 4}


def _endpoint(kind: str, **fields: Any) -> dict[str, Any]:
    """A remote node with all of its fields, as the editor sends them."""
    own = {name: default for name, (default, _) in declared(find_endpoint(kind).options_type).items()}
    every = {"profile": "default", **own, "force_new": False, "async_only": False, **fields}
    return node(f"ControlStack{kind}", request=["10", 0], **every)


def _remote(kind: str, prefix: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """The endpoint's node and where its pictures go."""
    return {
        "20": _endpoint(kind, **fields),
        "22": node("SaveImage", images=["20", 0], filename_prefix=f"controlstack_{prefix}"),
    }


def _sized(prompt: str, **more: Any) -> dict[str, Any]:
    return _request(prompt, **{"width": SIDE, "height": SIDE, **more})


MODELSLAB = ExampleGraph(
    "ModelsLab with two controls",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "service", strength=0.7),
        "4": _control("Depth", ["1", 0], "service", strength=0.7, controls=["2", 0]),
        "10": _sized("a lighthouse keeper greets a falling star, oil painting", guidance_scale=7.5, controls=["4", 0]),
        **_remote("ModelsLab", "modelslab", model_id="realistic-vision-51"),
    },
    {"1": 0, "2": 1, "4": 1, **_REMOTE_END},
)

ENTERPRISE = ExampleGraph(
    "ModelsLab Enterprise with a pose and a LoRA",
    {
        "1": node("LoadImage", image="controlstack_skeleton.png"),
        "2": _control("OpenPose", ["1", 0], "none"),
        "3": node("ControlStackLora", lora_name="(remote)", remote_id="more_details", strength=0.6),
        "10": _sized("a dancer in a red coat, studio photo", guidance_scale=7.5, controls=["2", 0], loras=["3", 0]),
        **_remote("ModelsLabEnterprise", "modelslab_enterprise", model_id="realistic-vision-51"),
    },
    {"1": 0, "2": 1, "3": 1, **_REMOTE_END},
)

SCENARIO = ExampleGraph(
    "Scenario with a control and a style",
    {
        "1": node("LoadImage", image="controlstack_depth.png"),
        "2": _control("Depth", ["1", 0], "none", strength=0.8),
        "3": node("LoadImage", image="controlstack_style.png"),
        "4": _reference(["3", 0], 0.6),
        "10": _sized(
            "a figure and a star in a paper theatre", guidance_scale=3.5, controls=["2", 0], references=["4", 0]
        ),
        **_remote("Scenario", "scenario", modelId="flux.1-dev"),
    },
    {"1": 0, "2": 1, "3": 0, "4": 1, **_REMOTE_END},
)

QOLABA_CONTROLNET = ExampleGraph(
    "Qolaba ControlNet with edges",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "service"),
        "10": _sized("a stage with a star of folded paper", controls=["2", 0]),
        **_remote("QolabaControlNet", "qolaba_controlnet", app_id="Flux Canny"),
    },
    {"1": 0, "2": 1, **_REMOTE_END},
)

QOLABA_IMAGE = ExampleGraph(
    "Qolaba Image to Image",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "10": _sized("the same scene as an embroidery", denoise=0.6, init_image=["1", 0]),
        **_remote("QolabaImageToImage", "qolaba_image", app_id="Flux Dev"),
    },
    {"1": 0, **_REMOTE_END},
)

FETCH = ExampleGraph(
    "Start a job now and fetch it later",
    {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": _control("Canny", ["1", 0], "service"),
        "10": _sized("a lighthouse keeper greets a falling star, woodcut", guidance_scale=7.5, controls=["2", 0]),
        "20": _endpoint("ModelsLab", async_only=True),
        "21": node("ControlStackFetchJob", service="ModelsLab", profile="default", job_id=["20", 2]),
        "22": node("SaveImage", images=["21", 0], filename_prefix="controlstack_fetched"),
    },
    {"1": 0, "2": 1, "10": 2, "20": 3, "21": 4, "22": 4},
)

_DRAWN_UP = (MODELSLAB, ENTERPRISE, SCENARIO, QOLABA_CONTROLNET, QOLABA_IMAGE, FETCH)


def _usual_graph(endpoint: Endpoint[Any]) -> ExampleGraph:
    """The graph of an endpoint that has none above: a control, else an initial image, else the prompt alone."""
    kind, table = type(endpoint).__name__, endpoint.capabilities(endpoint.options_type())
    modalities = [modality for modality in Modality if modality in table.controls.modalities]
    nodes: dict[str, dict[str, Any]] = {"1": node("LoadImage", image="controlstack_scene.png")}
    prompt = "a lighthouse keeper greets a falling star, oil painting"
    if modalities and table.controls.maximum:
        modality = Modality.CANNY if Modality.CANNY in modalities else modalities[0]
        detect = "service" if table.controls.detects else "local"
        nodes["2"] = _control(modality.node_id.removeprefix("ControlStack"), ["1", 0], detect)
        nodes["10"], start = _sized(prompt, controls=["2", 0]), f"with a {modality.title} control"
    elif table.init_images.accepted:
        nodes["10"], start = _sized(prompt, denoise=0.6, init_image=["1", 0]), "from an image"
    else:
        nodes, start = {"10": _sized(prompt)}, "from a prompt"
    columns = {key: column for key, column in {"1": 0, "2": 1, **_REMOTE_END}.items() if key in nodes or column > 2}
    return ExampleGraph(f"{endpoint.target} {start}", {**nodes, **_remote(kind, kind.lower())}, columns)


_SHOWN = {content["class_type"] for graph in _DRAWN_UP for content in graph.nodes.values()}
REMOTE_GRAPHS = (*_DRAWN_UP, *(_usual_graph(endpoint) for endpoint in ENDPOINTS if node_id(endpoint) not in _SHOWN))

EXAMPLE_GRAPHS = LOCAL_GRAPHS + MAP_GRAPHS + REMOTE_GRAPHS
