"""One node per modality, each derived from its detector's declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..core.errors import InvalidRequest
from ..core.images import to_rgb
from ..core.modality import Modality
from ..core.request import ControlUnit, Detect, Resize
from ..core.validate import image_problems
from ..preprocessors.parameters import Value
from ..preprocessors.registry import detector_for, find_detector
from .comfy import io
from .detection import NodeHost, parameter_input
from .sockets import Controls, choose, window_inputs

if TYPE_CHECKING:
    from torch import Tensor


class ControlNode(io.ComfyNode):
    """What all control nodes share; a subclass names its modality."""

    modality: ClassVar[Modality]

    @classmethod
    def define_schema(cls) -> io.Schema:
        detector = find_detector(cls.modality)
        title = cls.modality.title
        map_is = detector.summary if detector else f"The {title} map is made by another node."
        parameters = detector.parameters() if detector else ()
        return io.Schema(
            node_id=cls.__name__,
            display_name=f"{title} Control",
            category="ControlStack/controls",
            description=f"Adds {title} to the control stack. {map_is}",
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
                *map(parameter_input, parameters),
                Controls.Input("controls", optional=True, tooltip="The stack to add to; leave open to begin one."),
                io.Mask.Input("mask", optional=True, tooltip="Limits the control to the white area, where supported."),
            ],
            outputs=[
                Controls.Output("stack", display_name="controls", tooltip="The stack with this control at its end."),
                io.Image.Output(
                    "map", display_name="map", tooltip="The control map, to look at or to use again with detect = none."
                ),
            ],
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
        **parameters: Value,
    ) -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(controls, image)
        if problems := list(image_problems("image", image)):
            raise InvalidRequest(f"{cls.modality.title} Control", problems)
        who = choose(Detect, "detect", detect)
        shown = image
        if who is Detect.LOCAL:
            shown = detector_for(cls.modality).detect(to_rgb(image), NodeHost(), parameters, mask)
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
        return io.NodeOutput((*controls, unit), shown)


class ControlStackCanny(ControlNode):
    modality = Modality.CANNY


class ControlStackDepth(ControlNode):
    modality = Modality.DEPTH


class ControlStackOpenPose(ControlNode):
    modality = Modality.OPENPOSE


CONTROL_NODES: tuple[type[ControlNode], ...] = (ControlStackCanny, ControlStackDepth, ControlStackOpenPose)
