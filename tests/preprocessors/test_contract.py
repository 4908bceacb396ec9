"""What every method promises, whatever it draws: here all that need no trained file, as they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.registry import detector_for
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.parameters import Value


@dataclass(frozen=True)
class Case:
    """A detector with its settings; `detect` gives it a mask where it needs one: the right half."""

    detector: Detector
    settings: Mapping[str, Value]

    def detect(self, image: torch.Tensor, host: PlainHost) -> torch.Tensor:
        mask = torch.zeros(image.shape[:3])
        mask[:, :, image.shape[2] // 2 :] = 1
        return self.detector.detect(image, host, self.settings, mask if self.detector.needs_mask else None)


CASES = {
    f"{detector.modality.value}-{method.name}".rstrip("-"): Case(
        detector, {"method": method.name} if len(detector.methods) > 1 else {}
    )
    for detector in map(detector_for, Modality)
    for method in detector.methods
    if not method.weights
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Stopped(BaseException):
    """As ComfyUI raises it: an exception that no detector may catch."""


class StoppingHost(PlainHost):
    """The user presses stop while the first image is made."""

    def progress(self, done: int, total: int) -> None:
        if done >= 1:
            raise Stopped


def test_the_ones_that_need_no_trained_file_are_there() -> None:
    expected = "blur canny gray inpaint lineart-standard low_quality mlsd-opencv qrcode scribble-xdog shuffle tile"
    assert set(expected.split()) <= set(CASES)


@EVERY
@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (1, 9, 31, 3), (3, 57, 33, 3), (1, 640, 8, 3)])
def test_every_size_and_batch_comes_back_as_it_went_in(case: Case, shape: tuple[int, ...], host: PlainHost) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    before = image.clone()
    result = case.detect(image, host)
    assert result.shape == image.shape
    assert result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal(image, before), "the input is not changed"


@EVERY
def test_a_image_of_a_batch_is_the_one_made_alone(case: Case, photo: torch.Tensor, host: PlainHost) -> None:
    small = photo[:, 40:140, 60:190]
    batch = case.detect(torch.cat([small, small.flip(2)]), host)
    assert torch.allclose(case.detect(small, host)[0], batch[0], atol=1e-6)


@EVERY
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_image_gives_a_plain_map_and_nothing_is_black_without_a_word(
    case: Case, level: float, host: PlainHost
) -> None:
    result = case.detect(torch.full((1, 40, 64, 3), level), host)
    assert result.isfinite().all()
    assert result.any() or level == 0 or host.warnings


@EVERY
def test_the_user_can_stop_it_after_an_image(case: Case, photo: torch.Tensor) -> None:
    with pytest.raises(Stopped):
        case.detect(photo[:, :64, :64].expand(3, -1, -1, -1), StoppingHost(PlainMemory(torch.device("cpu"))))


@EVERY
def test_nobody_elses_randomness_is_used_or_moved(case: Case, photo: torch.Tensor, host: PlainHost) -> None:
    small = photo[:, :64, :64]
    torch.manual_seed(1)
    first = case.detect(small, host)
    state = torch.manual_seed(2).get_state()
    assert torch.equal(case.detect(small, host), first)
    assert torch.equal(torch.get_rng_state(), state)
