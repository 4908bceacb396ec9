"""Finding the net for a modality: what its name says it controls, and what its header says it fits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.conventions import union_mode
from ..core.errors import ModelNotFound, ModelUnreadable
from ..core.modality import Modality
from .families import Family
from .inspection import FileFacts, Kind, facts_of
from .library import Library, ModelFile
from .net_names import NET_SOURCES, NETS_OF, UNION_KINDS, UNION_WITHOUT_MODES, NetWord, word_of
from .weight_files import is_pickle, weight_files

log = logging.getLogger(__name__)

_NETS = (Kind.CONTROLNET, Kind.UNION)


@dataclass(frozen=True)
class Net:
    """A ControlNet that serves a modality. `mode` is the number under which a union net knows it, else None."""

    name: str
    path: Path
    modality: Modality
    union: bool = False
    mode: int | None = None


@dataclass(frozen=True)
class NetSearch:
    """Where nets are looked for and what they must fit: a family, and the width of the text features it attends to.

    `own` is the net folder of a diffusers model, which comes before the library's. `chosen` names a file of the library
    per modality, before any search.
    """

    family: Family
    width: int
    library: Library
    own: Path | None = None
    chosen: Mapping[Modality, str] = field(default_factory=dict)

    def nets(self) -> dict[Modality, Net]:
        """The net of each modality that has one, as it lies on the disk now.

        One made for the modality comes first, then a union net, then one made for something alike; of several the one
        with the shortest name. A file that cannot be read is left out with a warning. Raises ModelUnreadable or
        ModelNotFound for a chosen file that cannot serve.
        """
        candidates = [*self._fitting(self._own_files()), *self._fitting(self.library.files("controlnet"))]
        found = {modality: net for modality in Modality if (net := self._best(modality, candidates))}
        return {**found, **self.chosen_nets()}

    def chosen_nets(self) -> dict[Modality, Net]:
        """The nets that were chosen by name. Raises ModelUnreadable or ModelNotFound where one cannot serve."""
        return {modality: self._chosen(modality, name) for modality, name in self.chosen.items()}

    def remedies(self) -> Mapping[Modality, str]:
        """What `missing` says, by modality."""
        return _Remedies(self)

    def missing(self, modality: Modality) -> str:
        """Why there is no net for a modality: what was looked for, where, and where to get one."""
        word = NETS_OF[modality][0]
        spelt = " or ".join(_plain(spelling) for spelling in word.value)
        text = f"A ControlNet for {self.family.value} with {spelt} in its name"
        if self.family.compatible_family in UNION_KINDS and self._union_mode(modality) is not None:
            text += ", or a union net,"
        text += f" was looked for in {self._places()}"
        alike = [f"{file.name} {reason}" for file, reason in self._rejected(word)]
        text += f"; {'; '.join(alike)}. " if alike else ". "
        source = NET_SOURCES.get(self.family.compatible_family, {}).get(word)
        where = f"One is {source} on huggingface.co: put it" if source else "Put one"
        return f"{text}{where} into models/controlnet, or choose a file with a ControlNet Models node, or remove it."

    def _own_files(self) -> Iterable[ModelFile]:
        """The model's own nets: a folder for each, or one of which it is the folder."""
        if self.own is None:
            return ()
        if (self.own / "config.json").is_file():
            return (ModelFile(self.own.name, self.own),)
        return Library({"controlnet": [self.own]}).files("controlnet")

    def _fitting(self, files: Iterable[ModelFile]) -> list[tuple[ModelFile, FileFacts]]:
        fitting = []
        for file in files:
            # A pickle is opened only when it was chosen.
            if all(map(is_pickle, weight_files(file.path))):
                continue
            try:
                facts = facts_of(file.path)
            except (ModelUnreadable, ModelNotFound) as error:
                log.warning("%s It is left out.", error)
                continue
            if not self._misfit(facts):
                fitting.append((file, facts))
        return sorted(fitting, key=lambda pair: len(pair[0].name.rsplit("/", 1)[-1]))

    def _misfit(self, facts: FileFacts) -> str:
        """Why a file cannot be a net of the model, as the end of a sentence; "" for one that can."""
        if facts.kind not in _NETS:
            return f"is a {facts}, which is not a ControlNet this engine runs"
        if facts.family is None or facts.family.compatible_family is not self.family.compatible_family:
            return f"is a {facts}, and the model is {self.family.value}"
        if facts.width and self.width and facts.width != self.width:
            return f"reads text features {facts.width} wide, and the model's are {self.width} wide"
        return ""

    def _best(self, modality: Modality, candidates: Sequence[tuple[ModelFile, FileFacts]]) -> Net | None:
        own, *alike = NETS_OF[modality]
        plain = [(word_of(file.name), file) for file, facts in candidates if facts.kind is Kind.CONTROLNET]
        for word in (own, None, *alike):
            if word is None:
                unions = (self._as_union(modality, file, facts) for file, facts in candidates)
                net = next((net for net in unions if net), None)
            else:
                net = next((Net(file.name, file.path, modality) for said, file in plain if said is word), None)
            if net:
                return net
        return None

    def _as_union(self, modality: Modality, file: ModelFile, facts: FileFacts) -> Net | None:
        if facts.kind is Kind.UNION:
            mode = self._union_mode(modality)
            fits = mode is not None and mode < facts.modes
            return Net(file.name, file.path, modality, union=True, mode=mode) if fits else None
        known = UNION_WITHOUT_MODES.get(self.family.compatible_family, frozenset())
        by_name = modality in known and re.search("union", file.name, re.IGNORECASE)
        return Net(file.name, file.path, modality, union=True) if by_name else None

    def _union_mode(self, modality: Modality) -> int | None:
        kind = UNION_KINDS.get(self.family.compatible_family)
        return union_mode(kind, modality) if kind else None

    def _chosen(self, modality: Modality, name: str) -> Net:
        path = self.library.find("controlnet", name)
        facts = facts_of(path)
        if reason := self._misfit(facts):
            raise ModelUnreadable(f"{name}, chosen for {modality.value}, {reason}. Choose another net.")
        net = self._as_union(modality, ModelFile(name, path), facts)
        if facts.kind is not Kind.UNION:
            return net or Net(name, path, modality)
        if net is None:
            raise ModelUnreadable(f"{name}, a union net, does not know {modality.value}. Choose another net.")
        return net

    def _rejected(self, word: NetWord) -> Iterator[tuple[ModelFile, str]]:
        for file in self.library.files("controlnet"):
            if word_of(file.name) is word:
                if is_pickle(file.path):
                    yield file, "is a pickle, which is opened only when it is chosen"
                else:
                    try:
                        reason = self._misfit(facts_of(file.path))
                    except (ModelUnreadable, ModelNotFound):
                        reason = "cannot be read"
                    if reason:
                        yield file, reason

    def _places(self) -> str:
        return f"{self.own} and {self.library.places('controlnet')}" if self.own else self.library.places("controlnet")


@dataclass(frozen=True)
class _Remedies(Mapping[Modality, str]):
    """What can be done about a missing net, worked out when it is asked for."""

    search: NetSearch

    def __getitem__(self, modality: Modality) -> str:
        return self.search.missing(modality)

    def __iter__(self) -> Iterator[Modality]:
        return iter(Modality)

    def __len__(self) -> int:
        return len(Modality)


def _plain(spelling: str) -> str:
    """A spelling without the signs of regular expressions."""
    return re.sub(r"\(([^|)]*)[^)]*\)|\[(.)[^]]*]", r"\1\2", spelling).replace("_?", "").replace("?", "")
