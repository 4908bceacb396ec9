"""Make the sample pictures of the example workflows: drawings of the demo model's own world, and a photo.

python -m controlstack.tools.draw_samples

The photo is NASA's portrait of Eileen Collins, which is in the public domain, as scikit-image brings it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from skimage import data

from . import demo_scenes

SAMPLES = Path(__file__).resolve().parent.parent / "assets" / "samples"
HELD_OUT = {"scene": 108, "style": 17}


def sample_pictures() -> dict[str, np.ndarray]:
    """The pictures by file name, RGB."""
    scene = demo_scenes.draw_scene(HELD_OUT["scene"])
    style = demo_scenes.draw_scene(HELD_OUT["style"])
    return {
        "controlstack_scene.png": scene.image,
        "controlstack_depth.png": scene.depth,
        "controlstack_skeleton.png": scene.openpose,
        "controlstack_style.png": style.image,
        "controlstack_photo.jpg": data.astronaut(),
    }


if __name__ == "__main__":
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for name, picture in sample_pictures().items():
        options = [cv2.IMWRITE_JPEG_QUALITY, 88] if name.endswith(".jpg") else []
        cv2.imwrite(str(SAMPLES / name), picture[..., ::-1], options)
