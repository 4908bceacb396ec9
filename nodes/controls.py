"""One node per modality, each derived from its detector's declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ..core.conventions import is_black_on_white
from ..core.modality import Modality
from ..core.request import ControlUnit, Detect, Resize
from ..preprocessors.parameters import Value
from ..preprocessors.registry import detector_for
from .comfy import io, ui
from .detection import NodeHost, detect_map, ensure_image, parameter_input
from .sockets import Controls, choose, window_inputs

if TYPE_CHECKING:
    from torch import Tensor


_ON_PAPER = (
    "The image is dark lines on light paper, but ControlNets were trained on light lines on black. Generate Locally "
    "turns it round; a service gets it as it is. To turn it round everywhere, put an Invert Image before this node."
)


class ControlNode(io.ComfyNode):
    """What all control nodes share; a subclass names its modality."""

    modality: ClassVar[Modality]

    @classmethod
    def define_schema(cls) -> io.Schema:
        detector, title = detector_for(cls.modality), cls.modality.title
        limits = "Limits the control to the white area, where supported."
        mask_is = "The white area is filled in." if detector.needs_mask else limits
        return io.Schema(
            node_id=cls.__name__,
            display_name=f"{title} Control",
            category="ControlStack/controls",
            description=f"Adds {title} to the control stack. {detector.summary}",
            inputs=[
                io.Image.Input("image", tooltip="The picture to take the map from, or the map itself (see detect)."),
                io.Combo.Input(
                    "detect",
                    options=Detect,
                    default=Detect.LOCAL,
                    tooltip="Who makes the map: local = this node, service = the remote service, none = it is the map.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly the control acts, 0 to 2. 0 leaves it out.",
                ),
                *window_inputs("control"),
                io.Combo.Input(
                    "resize",
                    options=Resize,
                    default=Resize.CROP,
                    tooltip="For a map of another shape than the picture: crop it, fit it with black bars, or stretch.",
                ),
                io.Boolean.Input(
                    "enabled",
                    default=True,
                    tooltip="Off: the stack passes through unchanged, and map is the image as it came in.",
                ),
                *map(parameter_input, detector.parameters()),
                Controls.Input("controls", optional=True, tooltip="The stack to add to; leave open to begin one."),
                io.Mask.Input("mask", optional=not detector.needs_mask, tooltip=mask_is),
            ],
            outputs=[
                Controls.Output("stack", display_name="controls", tooltip="The stack with this control at its end."),
                io.Image.Output(
                    "map", display_name="map", tooltip="The control map, to look at or to use again with detect = none."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        detect: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        resize: str,
        enabled: bool,
        controls: tuple[ControlUnit, ...] = (),
        mask: Tensor | None = None,
        **parameters: Value | None,
    ) -> io.NodeOutput:
        host = NodeHost(cls.hidden.unique_id)
        if not enabled:
            return io.NodeOutput(controls, image)
        ensure_image(image, f"{cls.modality.title} Control")
        who = choose(Detect, "detect", detect)
        shown = image
        if who is Detect.LOCAL:
            shown = detect_map(detector_for(cls.modality), image, host, parameters, mask)
        unit = ControlUnit(
            modality=cls.modality,
            image=shown,
            detect=who,
            strength=strength,
            start=start_percent,
            end=end_percent,
            resize=choose(Resize, "resize", resize),
            mask=mask,
        )
        if is_black_on_white(unit):
            host.warn(_ON_PAPER)
        if not host.warnings:
            return io.NodeOutput((*controls, unit), shown)
        # They were sent when they came up; as the node's ui they stay in the history as well.
        return io.NodeOutput((*controls, unit), shown, ui=ui.PreviewText("\n".join(host.warnings)))


_NODE_IDS: Mapping[Modality, str] = {
    Modality.CANNY: "ControlStackCanny",
    Modality.DEPTH: "ControlStackDepth",
    Modality.HED: "ControlStackHED",
    Modality.MLSD: "ControlStackMLSD",
    Modality.NORMAL: "ControlStackNormal",
    Modality.OPENPOSE: "ControlStackOpenPose",
    Modality.SCRIBBLE: "ControlStackScribble",
    Modality.SEGMENTATION: "ControlStackSegmentation",
    Modality.INPAINT: "ControlStackInpaint",
    Modality.SOFTEDGE: "ControlStackSoftEdge",
    Modality.LINEART: "ControlStackLineart",
    Modality.SHUFFLE: "ControlStackShuffle",
    Modality.TILE: "ControlStackTile",
    Modality.FACE_DETECTOR: "ControlStackFaceDetector",
    Modality.QRCODE: "ControlStackQRCode",
    Modality.BLUR: "ControlStackBlur",
    Modality.POSE: "ControlStackPose",
    Modality.GRAY: "ControlStackGray",
    Modality.LOW_QUALITY: "ControlStackLowQuality",
}
CONTROL_NODES: tuple[type[ControlNode], ...] = tuple(
    type(node_id, (ControlNode,), {"modality": modality}) for modality, node_id in _NODE_IDS.items()
)
