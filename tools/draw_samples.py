"""Draw the sample images of the example graphs: scenes of the kind the demo model was trained on, and a photo.

The photo is NASA's portrait of Eileen Collins, in the public domain, as scikit-image ships it. `python dev.py docs
--images` writes the files.
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


def sample_images() -> dict[str, np.ndarray]:
    """The images by file name: uint8 [height, width, 3], RGB."""
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
        # Half size: an example enlarges it to the size that the demo model was trained on.
        "controlstack_small.png": cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "controlstack_photo.jpg": data.astronaut(),
    }


def main() -> None:
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for name, image in sample_images().items():
        options = [cv2.IMWRITE_JPEG_QUALITY, 88] if name.endswith(".jpg") else []
        cv2.imwrite(str(SAMPLES / name), image[..., ::-1], options)


if __name__ == "__main__":
    main()
