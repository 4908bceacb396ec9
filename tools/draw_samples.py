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
TRIANGLES = (700_007, 700_011, 700_013, 700_018)


def sample_pictures() -> dict[str, np.ndarray]:
    """The pictures by file name, RGB."""
    scene = demo_scenes.draw_scene(HELD_OUT["scene"])
    style = demo_scenes.draw_scene(HELD_OUT["style"])
    pink_on_white = demo_scenes.Palette("white", ("pink", "red", "blue"))
    four = [demo_scenes.draw_scene(seed, pink_on_white, objects=1, person=False).image for seed in TRIANGLES]
    large = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
    return {
        "controlstack_scene.png": scene.image,
        "controlstack_depth.png": scene.depth,
        "controlstack_skeleton.png": scene.openpose,
        "controlstack_style.png": style.image,
        # To be enlarged: only then are they as large as the demo model knows them.
        "controlstack_small.png": cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "controlstack_photo.jpg": data.astronaut(),
    }


if __name__ == "__main__":
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for name, picture in sample_pictures().items():
        options = [cv2.IMWRITE_JPEG_QUALITY, 88] if name.endswith(".jpg") else []
        cv2.imwrite(str(SAMPLES / name), picture[..., ::-1], options)
