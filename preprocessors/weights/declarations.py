"""Which trained files the detectors use: their names, their place on Hugging Face, their size and checksum."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """A trained file on Hugging Face.

    repo: the repository, e.g. "lllyasviel/Annotators".
    revision: the commit. It may be a branch where no commit is known; the checksum then identifies the file.
    file: the path inside the repository.
    size: bytes. Without `sha256` it is the rounded size that the hub lists.
    sha256: the checksum. Without it a download is verified against the checksum that the hub states for the commit.
    names: other paths of the same file, relative to a weight folder, under which other programs keep it.
    """

    repo: str
    revision: str
    file: str
    size: int
    sha256: str = ""
    names: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The download address. The variable HF_ENDPOINT may name a mirror of the hub."""
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/{self.repo}/resolve/{self.revision}/{self.file}"

    @property
    def path(self) -> Path:
        """Where a download is stored, relative to a weight folder, as in the `ckpts` of comfyui_controlnet_aux."""
        return Path(self.repo, self.file)


def annotators_file(folder: str, file: str, size: int, sha256: str = "") -> Weights:
    """A file of lllyasviel/Annotators, which has the files of most detectors. A1111 keeps it in `folder`."""
    revision = "982e7edaec38759d914a963c48c4726685de7d96"
    return Weights("lllyasviel/Annotators", revision, file, size, sha256, names=(file, f"{folder}/{file}"))
