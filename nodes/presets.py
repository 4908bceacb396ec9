"""The node that adds a predefined combination of controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from ..core.presets import PRESETS, Preset, describe_expansion, expand
from ..core.request import ControlUnit
from ..preprocessors.detectors.registry import detector_for
from .comfy import io, show_text, ui
from .detection import NodeHost, detect_map, ensure_image
from .sockets import Controls, choose

if TYPE_CHECKING:
    from torch import Tensor


class ControlStackPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        meanings = [
            f"{preset.value} ({' and '.join(layer.modality.title for layer in layers)})"
            for preset, layers in PRESETS.items()
        ]
        return io.Schema(
            node_id="ControlStackPreset",
            display_name="Control Preset",
            category="ControlStack/controls",
            description="Adds the controls that suit a kind of image and computes their maps. "
            "A control whose map is empty is left out. The node shows what it added.",
            inputs=[
                io.Image.Input("image", tooltip="The image to compute the control maps from."),
                io.Combo.Input(
                    "preset",
                    options=Preset,
                    default=Preset.CHARACTER,
                    tooltip=f"What the image shows: {', '.join(meanings)}.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the first control (0 to 2). The second control has a fraction of it. 0: "
                    "no controls.",
                ),
                Controls.Input(
                    "controls", optional=True, tooltip="The control stack to add to. Not connected: start a new stack."
                ),
            ],
            outputs=[
                Controls.Output(
                    "stack",
                    display_name="controls",
                    tooltip="The control stack with the controls of the preset at the end.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, image: Tensor, preset: str, strength: float, controls: tuple[ControlUnit, ...] = ()
    ) -> io.NodeOutput:
        host = NodeHost(cls.hidden.unique_id)
        if strength == 0:
            return io.NodeOutput(controls)
        ensure_image(image, "Control Preset")

        def make_map(modality: Modality) -> Tensor:
            return detect_map(detector_for(modality), image, host, {})

        units, left_out = expand(choose(Preset, "preset", preset), strength, make_map)
        text = "\n".join([*host.warnings, describe_expansion(units, left_out)])
        show_text(cls.hidden.unique_id, text)
        return io.NodeOutput((*controls, *units), ui=ui.PreviewText(text))
