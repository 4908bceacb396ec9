"""Find people in OpenPose's heatmaps and part affinity fields.

Cao et al. 2017, "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", with the thresholds of the
ControlNet 1.1 annotator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .skeleton import BODY_POINTS, LEFT_EAR, LEFT_SHOULDER, LIMBS, RIGHT_EAR, RIGHT_SHOULDER, Keypoint, Keypoints

if TYPE_CHECKING:
    import numpy as np

# The limbs, then two links from shoulder to ear, which support a person but are not drawn.
_LINKS = (*LIMBS, (RIGHT_SHOULDER, RIGHT_EAR), (LEFT_SHOULDER, LEFT_EAR))
# The channel of each link's field in x. The next channel is the field in y.
_FIELDS = (12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26)

_PEAK_SIGMA = 3.0
_PEAK_THRESHOLD = 0.1
_MOST_PEAKS = 100  # per body part; a map without people can have many more
_FIELD_THRESHOLD = 0.05
_FIELD_SAMPLES = 10
_SAMPLES_ABOVE = 0.8
_FEWEST_PARTS = 4
_LOWEST_MEAN_SCORE = 0.4


@dataclass(eq=False)
class _Candidate:
    """A person being assembled: the index of the peak of each known body part, and the sum of all scores."""

    peaks: dict[int, int]
    score: float

    @property
    def is_person(self) -> bool:
        return len(self.peaks) >= _FEWEST_PARTS and self.score / len(self.peaks) >= _LOWEST_MEAN_SCORE


def find_bodies(heat: np.ndarray, fields: np.ndarray) -> list[Keypoints]:
    """The body keypoints of all people in one image, in pixels of the maps.

    heat: [18 or more, h, w], a map in 0..1 per body part.
    fields: [38, h, w], the x and y direction of each link.

    Both are the output of OpenPose's COCO network, enlarged to the grid on which keypoints are searched.
    """
    parts = [_find_peaks(part) for part in heat[:BODY_POINTS]]
    candidates: list[_Candidate] = []
    for number, ((start, end), channel) in enumerate(zip(_LINKS, _FIELDS, strict=True)):
        for a, b, score in _find_links(parts[start], parts[end], fields[channel : channel + 2]):
            gain = score + parts[end][b].score
            owners = [other for other in candidates if other.peaks.get(start) == a or other.peaks.get(end) == b][:2]
            if not owners:
                if number < len(LIMBS):
                    candidates.append(_Candidate({start: a, end: b}, gain + parts[start][a].score))
            elif len(owners) == 2 and owners[0].peaks.keys().isdisjoint(owners[1].peaks):
                first, second = owners
                first.peaks.update(second.peaks)
                first.score += second.score + score
                candidates.remove(second)
            elif owners[0].peaks.get(end) != b:
                owners[0].peaks[end] = b
                owners[0].score += gain
    return [
        tuple(parts[part][person.peaks[part]] if part in person.peaks else None for part in range(BODY_POINTS))
        for person in candidates
        if person.is_person
    ]


def _find_peaks(part: np.ndarray) -> Sequence[Keypoint]:
    """The local maxima of a body part's map, best first."""
    import cv2
    import numpy as np

    blurred = cv2.GaussianBlur(part, (0, 0), _PEAK_SIGMA)
    height, width = blurred.shape
    padded = np.pad(blurred, 1, constant_values=-np.inf)
    middle = slice(1, -1)
    # Strictly greater on two sides only, so that a plateau has one peak.
    is_peak = (blurred > _PEAK_THRESHOLD) & (blurred > padded[middle, :width]) & (blurred > padded[:height, middle])
    is_peak &= (blurred >= padded[middle, 2:]) & (blurred >= padded[2:, middle])
    peaks = [Keypoint(float(x), float(y), float(part[y, x])) for y, x in np.argwhere(is_peak)]
    return sorted(peaks, key=lambda peak: peak.score, reverse=True)[:_MOST_PEAKS]


def _find_links(
    starts: Sequence[Keypoint], ends: Sequence[Keypoint], direction: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """Pairs of a start and an end that the field connects, with their score, best first."""
    import numpy as np

    if not starts or not ends:
        return
    height, width = direction.shape[1:]
    origin = np.array([(point.x, point.y) for point in starts])[:, None]
    vector = np.array([(point.x, point.y) for point in ends])[None] - origin
    length = np.maximum(np.linalg.norm(vector, axis=-1), 1e-3)
    steps = np.linspace(0, 1, _FIELD_SAMPLES)[:, None]
    x, y = np.moveaxis(np.round(origin[:, :, None] + vector[:, :, None] * steps).astype(int), -1, 0)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    unit = vector / length[..., None]
    agreement = direction[0, y, x] * unit[..., :1] + direction[1, y, x] * unit[..., 1:]
    # Links longer than half the image are unlikely.
    score = agreement.mean(-1) + np.minimum(0.5 * height / length - 1, 0)
    likely = (score > 0) & ((agreement > _FIELD_THRESHOLD).sum(-1) > _SAMPLES_ABOVE * _FIELD_SAMPLES)
    taken_starts, taken_ends = set[int](), set[int]()
    pairs = np.argwhere(likely)
    for a, b in pairs[np.argsort(-score[likely], kind="stable")]:
        if a not in taken_starts and b not in taken_ends:
            taken_starts.add(int(a))
            taken_ends.add(int(b))
            yield int(a), int(b), float(score[a, b])
