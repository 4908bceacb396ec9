"""What the demo model can do, in figures, measured through the local engine on scenes it was not trained on.

    python -m controlstack.tools.demo_figures        # writes the table of assets/demo_model/README.md

The same functions feed the test of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.memory import PlainMemory
from ..core.modality import Modality
from ..core.request import ControlUnit, GenerationRequest, ImageReference
from ..local.engine.generate import generate
from ..local.files.load import load_model
from ..local.model.local_model import LocalModel
from ..local.model.source import DEMO_MODEL, source_of
from .demo_scenes import BACKGROUNDS, COLORS, SHAPES, SIZE, SKIN, Scene, draw_scene, edges

HELD_OUT = 500_000  # training scenes begin at 1,000,000
TABLE_START, TABLE_END = "<!-- figures -->", "<!-- end of figures -->"
PALETTE = {**COLORS, **BACKGROUNDS, "skin": SKIN}


def request_for(scene: Scene, seed: int, prompt: str | None = None) -> GenerationRequest:
    return GenerationRequest(
        prompt=scene.caption if prompt is None else prompt,
        width=SIZE,
        height=SIZE,
        steps=21,
        guidance_scale=4.0,
        seed=seed,
    )


def control(modality: Modality, scene: Scene, strength: float = 1.0) -> ControlUnit:
    maps = {Modality.CANNY: scene.canny, Modality.DEPTH: scene.depth, Modality.OPENPOSE: scene.openpose}
    return ControlUnit(modality, to_tensor(maps[modality]), strength=strength)


def to_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).float()[None] / 255


def picture_of(model: LocalModel, request: GenerationRequest) -> np.ndarray:
    """The result, uint8 [height, width, 3]."""
    return (generate(model, request).images[0] * 255).round().byte().numpy()


# -- what is seen in a picture -----------------------------------------------------------------------------------------


def edge_f1(picture: np.ndarray, control_map: np.ndarray, tolerance: int = 2) -> float:
    """F1 of the picture's edges against the map's, where a pixel counts as found within `tolerance` pixels."""
    found, wanted = edges(picture) > 0, control_map[..., 0] > 0
    reach = np.ones((2 * tolerance + 1,) * 2, np.uint8)
    near_found, near_wanted = (cv2.dilate(m.astype(np.uint8), reach) > 0 for m in (found, wanted))
    precision = (found & near_wanted).sum() / max(1, found.sum())
    recall = (wanted & near_found).sum() / max(1, wanted.sum())
    return float(2 * precision * recall / max(1e-6, precision + recall))


def foreground(picture: np.ndarray) -> np.ndarray:
    """Where the picture differs from its background, which is the median color of its border."""
    border = np.concatenate([picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3), picture[:, 0], picture[:, -1]])
    distance = np.abs(picture.astype(int) - np.median(border, axis=0)).max(axis=-1)
    return distance > 45


def overlap(picture: np.ndarray, area: np.ndarray) -> float:
    """Intersection over union of the picture's foreground and an area."""
    seen = foreground(picture)
    return float((seen & area).sum() / max(1, (seen | area).sum()))


def nearest_names(picture: np.ndarray) -> np.ndarray:
    """For each pixel the number of the palette color nearest to it."""
    colors = np.array(list(PALETTE.values()), int)
    return ((picture.reshape(-1, 1, 3).astype(int) - colors) ** 2).sum(-1).argmin(-1).reshape(picture.shape[:2])


def shape_color(picture: np.ndarray) -> str:
    """The object color that most of the foreground has, or '' where there is no foreground."""
    names = nearest_names(picture)[foreground(picture)]
    counts = np.bincount(names, minlength=len(PALETTE))[: len(COLORS)]
    return list(COLORS)[int(counts.argmax())] if counts.any() else ""


def palette_distance(picture: np.ndarray, reference: np.ndarray) -> float:
    """Half the L1 distance of two color histograms over the palette: 0 is equal, 1 has nothing in common."""
    shares = [
        np.bincount(nearest_names(p).ravel(), minlength=len(PALETTE)) / p[..., 0].size for p in (picture, reference)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


# -- the figures -------------------------------------------------------------------------------------------------------


@dataclass
class DemoFigures:
    """The figures of a model, over `count` scenes each; a picture that two of them look at is drawn once."""

    model: LocalModel
    count: int = 32
    _drawn: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict)

    def canny(self, strength: float) -> float:
        """Mean edge F1 against the canny map."""
        strengths = {Modality.CANNY: strength}
        return _mean(edge_f1(self._picture(i, s, strengths), s.canny) for i, s in self._scenes())

    def depth(self, strength: float) -> float:
        """Mean overlap of the result's foreground with the objects of the depth map."""
        strengths = {Modality.DEPTH: strength}
        return _mean(overlap(self._picture(i, s, strengths), s.silhouette) for i, s in self._scenes())

    def openpose(self, strength: float) -> float:
        """Mean overlap of the drawn person with the body whose skeleton was given."""
        strengths = {Modality.OPENPOSE: strength}
        return _mean(overlap(self._picture(i, s, strengths), s.person) for i, s in self._people())

    def pair(self) -> dict[str, float]:
        """Edge F1 and body overlap on single-person scenes: canny alone, openpose alone, and both together."""
        both = {Modality.CANNY: 1.0, Modality.OPENPOSE: 1.0}
        return {
            "canny alone": _mean(edge_f1(self._picture(i, s, {Modality.CANNY: 1}), s.canny) for i, s in self._people()),
            "openpose alone": self.openpose(1.0),
            "canny in pair": _mean(edge_f1(self._picture(i, s, both), s.canny) for i, s in self._people()),
            "openpose in pair": _mean(overlap(self._picture(i, s, both), s.person) for i, s in self._people()),
        }

    def prompt(self) -> float:
        """Share of single-shape prompts whose named color is the shape's dominant color."""
        hits = []
        for i in range(self.count):
            rng = np.random.default_rng(HELD_OUT + i)
            color, shape, background = (str(rng.choice(list(names))) for names in (COLORS, SHAPES, BACKGROUNDS))
            article = "an" if color[0] in "aeiou" else "a"
            prompt = f"{article} {color} {shape} on a {background} background"
            picture = picture_of(self.model, request_for(draw_scene(HELD_OUT + i), i, prompt))
            hits.append(shape_color(picture) == color)
        return _mean(float(hit) for hit in hits)

    def reference(self) -> dict[str, float]:
        """Mean palette distance to a reference that shares nothing with the prompt but the kinds of shapes."""
        distances: dict[str, list[float]] = {"without": [], "with": []}
        for i, s in self._scenes():
            reference = draw_scene(HELD_OUT + 100_000 + i)
            request = request_for(s, i, s.colorless_caption.partition(" on a ")[0])
            unit = ImageReference(to_tensor(reference.image), scale=1.0)
            for name, asked in (("without", request), ("with", replace(request, references=(unit,)))):
                distances[name].append(palette_distance(picture_of(self.model, asked), reference.image))
        return {name: _mean(values) for name, values in distances.items()}

    def all(self) -> dict[str, float]:
        """Every figure by its name on the card."""
        return {
            **{f"canny {strength}": self.canny(strength) for strength in (0.0, 0.5, 1.0)},
            **{f"depth {strength}": self.depth(strength) for strength in (0.0, 1.0)},
            **{f"openpose {strength}": self.openpose(strength) for strength in (0.0, 1.0)},
            "prompt": self.prompt(),
            **self.pair(),
            **{f"palette distance {name}": value for name, value in self.reference().items()},
        }

    def _scenes(self) -> Iterable[tuple[int, Scene]]:
        return ((i, draw_scene(HELD_OUT + i)) for i in range(self.count))

    def _people(self) -> Iterable[tuple[int, Scene]]:
        return ((i, draw_scene(HELD_OUT + i, objects=1, person=True)) for i in range(self.count))

    def _picture(self, seed: int, scene: Scene, strengths: Mapping[Modality, float]) -> np.ndarray:
        acting = {modality: strength for modality, strength in strengths.items() if strength}
        key = (seed, scene.image.tobytes(), *acting.items())
        if key not in self._drawn:
            controls = tuple(control(modality, scene, strength) for modality, strength in strengths.items())
            self._drawn[key] = picture_of(self.model, replace(request_for(scene, seed), controls=controls))
        return self._drawn[key]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def card_table(figures: Mapping[str, float]) -> str:
    """The figures as the card shows them."""
    return "\n".join(
        ["| figure | value |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in figures.items())]
    )


def main() -> None:
    model = load_model(source_of(DEMO_MODEL), "demo", PlainMemory(torch.device("cpu")), torch.float32)
    table = card_table(DemoFigures(model).all())
    card = DEMO_MODEL / "README.md"
    before, _, rest = card.read_text(encoding="utf-8").partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    card.write_text(f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
