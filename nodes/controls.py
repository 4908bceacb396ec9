"""One control node per modality, derived from the modality and the declaration of its detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..core.conventions import is_black_on_white
from ..core.modality import Modality
from ..core.request import ControlUnit, Detect, Resize
from ..preprocessors.detectors.registry import detector_for
from ..preprocessors.parameters import Value
from .comfy import io, ui
from .detection import NodeHost, detect_map, ensure_image, parameter_input
from .sockets import Controls, choose, window_inputs

if TYPE_CHECKING:
    from torch import Tensor


_BLACK_ON_WHITE = (
    "The image shows dark lines on a light background, but ControlNets were trained on light lines on black. Generate "
    "Locally inverts it. A service gets it unchanged. To invert it for all targets, add Invert Image before this node."
)


class ControlNode(io.ComfyNode):
    """The base of all control nodes. A subclass names its modality."""

    modality: ClassVar[Modality]

    @classmethod
    def define_schema(cls) -> io.Schema:
        detector, title = detector_for(cls.modality), cls.modality.title
        limits = "Limits the control to the white area of the mask, if the target supports that."
        mask_tooltip = "The white area is inpainted." if detector.needs_mask else limits
        return io.Schema(
            node_id=cls.modality.node_id,
            display_name=f"{title} Control",
            category="ControlStack/controls",
            description=f"Adds {title} to the control stack. {detector.summary}",
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The image to compute the control map from, or the control map itself (see detect).",
                ),
                io.Combo.Input(
                    "detect",
                    options=Detect,
                    default=Detect.LOCAL,
                    tooltip="Where the control map is computed. local: in this node. service: by the remote service. "
                    "none: the image already is a control map.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How strongly the control guides the image (0 to 2). 0: no control.",
                ),
                *window_inputs("control"),
                io.Combo.Input(
                    "resize",
                    options=Resize,
                    default=Resize.CROP,
                    tooltip="How to fit a control map whose aspect ratio differs from the output: crop, fit "
                    "(letterbox with "
                    "black) or stretch.",
                ),
                io.Boolean.Input(
                    "enabled",
                    default=True,
                    tooltip="Off: the control stack passes through unchanged, and the output map is the input image.",
                ),
                *map(parameter_input, detector.parameters()),
                Controls.Input(
                    "controls", optional=True, tooltip="The control stack to add to. Not connected: start a new stack."
                ),
                io.Mask.Input("mask", optional=not detector.needs_mask, tooltip=mask_tooltip),
            ],
            outputs=[
                Controls.Output(
                    "stack", display_name="controls", tooltip="The control stack with this control at the end."
                ),
                io.Image.Output(
                    "map",
                    display_name="map",
                    tooltip="The control map, to preview it or to reuse it with detect set to none.",
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
        detect_in = choose(Detect, "detect", detect)
        control_map = image
        if detect_in is Detect.LOCAL:
            control_map = detect_map(detector_for(cls.modality), image, host, parameters, mask)
        unit = ControlUnit(
            modality=cls.modality,
            image=control_map,
            detect=detect_in,
            strength=strength,
            start=start_percent,
            end=end_percent,
            resize=choose(Resize, "resize", resize),
            mask=mask,
        )
        if is_black_on_white(unit):
            host.warn(_BLACK_ON_WHITE)
        if not host.warnings:
            return io.NodeOutput((*controls, unit), control_map)
        # The warnings were shown while the node ran. As its ui they are also kept in the history.
        return io.NodeOutput((*controls, unit), control_map, ui=ui.PreviewText("\n".join(host.warnings)))


CONTROL_NODES: tuple[type[ControlNode], ...] = tuple(
    type(modality.node_id, (ControlNode,), {"modality": modality}) for modality in Modality
)
