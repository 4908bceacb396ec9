"""Finds the ControlNet for each modality: a file is chosen by its name and by what its header says it fits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
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

_NO_NET = "There is no ControlNet for {family} with {spellings} in its name in {places}."
_NO_NET_NOR_UNION = "There is no ControlNet for {family} with {spellings} in its name, and no union net, in {places}."
_GET_NET = "Put one into models/controlnet, choose a file with a ControlNet Models node, or remove the control."
_GET_PUBLISHED_NET = (
    "Put {source} from huggingface.co into models/controlnet, choose a file with a ControlNet Models node, or remove "
    "the control."
)


@dataclass(frozen=True)
class Net:
    """A ControlNet that serves a modality. `mode` is the control type number of a union net that takes one."""

    name: str
    path: Path
    modality: Modality
    union: bool = False
    mode: int | None = None


@dataclass(frozen=True)
class NetSearch:
    """A search for the ControlNets that fit a model of a family with text features of this `width`.

    `own` is the ControlNet folder of a diffusers model, which is searched before the library. `chosen` is the file of
    the library that the user chose for a modality, which is used instead of searching.
    """

    family: Family
    width: int
    library: Library
    own: Path | None = None
    chosen: Mapping[Modality, str] = field(default_factory=dict[Modality, str])

    def nets(self) -> dict[Modality, Net]:
        """The net of each modality that has one on the disk now.

        Nets made for the modality come first, then union nets, then nets for a similar modality; of several, the one
        with the shortest name is used. A file that cannot be read is skipped with a warning. Raises ModelUnreadable or
        ModelNotFound for a chosen file that cannot be used.
        """
        candidates = [*self._fitting(self._own_files()), *self._fitting(self.library.files("controlnet"))]
        found = {modality: net for modality in Modality if (net := self._best(modality, candidates))}
        return {**found, **self.chosen_nets()}

    def chosen_nets(self) -> dict[Modality, Net]:
        """The nets that were chosen by name. Raises ModelUnreadable or ModelNotFound if one cannot be used."""
        return {modality: self._chosen(modality, name) for modality, name in self.chosen.items()}

    def remedies(self) -> Mapping[Modality, str]:
        """The text of `missing` for each modality."""
        return _Remedies(self)

    def missing(self, modality: Modality) -> str:
        """Sentences on why there is no net for a modality, and what to do: where to get one, or remove the control."""
        word = NETS_OF[modality][0]
        family = self.family.compatible_family
        has_union = family in UNION_KINDS and self._union_mode(modality) is not None
        source = NET_SOURCES.get(family, {}).get(word)
        sentences = (
            (_NO_NET_NOR_UNION if has_union else _NO_NET).format(
                family=self.family.value,
                spellings=" or ".join(_plain(spelling) for spelling in word.value),
                places=self._places(),
            ),
            *self._rejected(word),
            _GET_PUBLISHED_NET.format(source=source) if source else _GET_NET,
        )
        return " ".join(sentences)

    def _own_files(self) -> Iterable[ModelFile]:
        """The model's own nets: one folder for each, or a single net directly in the folder."""
        if self.own is None:
            return ()
        if (self.own / "config.json").is_file():
            return (ModelFile(self.own.name, self.own),)
        return Library({"controlnet": [self.own]}).files("controlnet")

    def _fitting(self, files: Iterable[ModelFile]) -> list[tuple[ModelFile, FileFacts]]:
        fitting: list[tuple[ModelFile, FileFacts]] = []
        for file in files:
            # A pickle is opened only if the user chose it.
            if all(map(is_pickle, weight_files(file.path))):
                continue
            try:
                facts = facts_of(file.path)
            except (ModelUnreadable, ModelNotFound) as error:
                log.warning("%s The file is skipped.", error)
                continue
            if not self._mismatch(file.name, facts):
                fitting.append((file, facts))
        return sorted(fitting, key=lambda pair: len(pair[0].name.rsplit("/", 1)[-1]))

    def _mismatch(self, name: str, facts: FileFacts) -> str:
        """A sentence on why a file cannot be a net of the model, or "" if it can."""
        if facts.kind not in _NETS:
            return f"{name} is {facts.with_article}, which the local engine cannot use as a ControlNet."
        if facts.family is None or facts.family.compatible_family is not self.family.compatible_family:
            return f"{name} is {facts.with_article}, but the model is {self.family.value}."
        if facts.width and self.width and facts.width != self.width:
            return f"{name} takes text features {facts.width} wide, but those of the model are {self.width} wide."
        return ""

    def _best(self, modality: Modality, candidates: Sequence[tuple[ModelFile, FileFacts]]) -> Net | None:
        own, *similar = NETS_OF[modality]
        single = [(word_of(file.name), file) for file, facts in candidates if facts.kind is Kind.CONTROLNET]

        def named(wanted: NetWord) -> Iterator[Net]:
            return (Net(file.name, file.path, modality) for word, file in single if word is wanted)

        unions = (self._as_union(modality, file, facts) for file, facts in candidates)
        in_order = chain(named(own), (net for net in unions if net), *map(named, similar))
        return next(in_order, None)

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
        if mismatch := self._mismatch(name, facts):
            raise ModelUnreadable(f"{mismatch} Choose another ControlNet for {modality.value}.")
        net = self._as_union(modality, ModelFile(name, path), facts)
        if facts.kind is not Kind.UNION:
            return net or Net(name, path, modality)
        if net is None:
            raise ModelUnreadable(
                f"The union net {name} does not support {modality.value}. Choose another ControlNet for it."
            )
        return net

    def _rejected(self, word: NetWord) -> Iterator[str]:
        """A sentence for each file that has the word in its name, but cannot be used."""
        for file in self.library.files("controlnet"):
            if word_of(file.name) is not word:
                continue
            if is_pickle(file.path):
                yield f"{file.name} is a pickle, which is opened only if you choose it."
                continue
            try:
                mismatch = self._mismatch(file.name, facts_of(file.path))
            except (ModelUnreadable, ModelNotFound):
                mismatch = f"{file.name} cannot be read."
            if mismatch:
                yield mismatch

    def _places(self) -> str:
        return f"{self.own} and {self.library.places('controlnet')}" if self.own else self.library.places("controlnet")


@dataclass(frozen=True)
class _Remedies(Mapping[Modality, str]):
    """The text of `NetSearch.missing` by modality, made when it is looked up."""

    search: NetSearch

    def __getitem__(self, modality: Modality) -> str:
        return self.search.missing(modality)

    def __iter__(self) -> Iterator[Modality]:
        return iter(Modality)

    def __len__(self) -> int:
        return len(Modality)


def _plain(spelling: str) -> str:
    """A regular expression for a spelling as a plain word."""
    return re.sub(r"\(([^|)]*)[^)]*\)|\[(.)[^]]*]", r"\1\2", spelling).replace("_?", "").replace("?", "")
