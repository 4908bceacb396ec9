"""What the local engine supports, case by case: each family, task and kind of ControlNets, with references and LoRAs.

The verdicts come from the capability tables. The engine's tests run every case on a small model and compare the
outcome with the verdict. `python dev.py docs` writes the tables into docs/local.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from ..core.modality import Modality
from ..core.request import ControlUnit, GenerationRequest, ImageReference, Lora
from ..core.validate import validate
from ..local.model.capabilities import TABLES
from ..local.model.pipelines import Task
from ..models.families import Family
from ..models.net_names import UNION_KINDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "local.md"
START, END = "<!-- cases -->", "<!-- end of cases -->"
SIZE = 64

# The nets of a case by their modalities. Canny and Depth have nets of their own, the others are served by union nets.
NETS: Mapping[str, tuple[Modality, ...]] = {
    "no net": (),
    "one net": (Modality.CANNY,),
    "two nets": (Modality.CANNY, Modality.DEPTH),
    "union net": (Modality.OPENPOSE,),
    "union net, two maps": (Modality.OPENPOSE, Modality.TILE),
    "net and union net": (Modality.CANNY, Modality.OPENPOSE),
}
_SERVED_BY_UNION = frozenset({Modality.OPENPOSE, Modality.TILE})


@dataclass(frozen=True)
class Cell:
    """One case."""

    family: Family
    task: Task
    nets: str
    references: bool
    loras: bool

    def __str__(self) -> str:
        extras = [name for name, on in (("references", self.references), ("LoRAs", self.loras)) if on]
        return ", ".join([self.family.value, self.task.value, self.nets, *extras])

    def request(self, lora: str = "any") -> GenerationRequest:
        """A small request of this case; the pictures in it are noise."""
        start = {} if self.task is Task.TEXT_TO_IMAGE else {"init_image": _noise(1), "denoise": 0.6}
        if self.task is Task.INPAINT:
            start["mask"] = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)
        return GenerationRequest(
            prompt="a red circle",
            width=SIZE,
            height=SIZE,
            steps=2,
            guidance_scale=3.5,
            seed=5,
            controls=tuple(ControlUnit(m, 0.4 * _noise(2 + i), strength=0.9) for i, m in enumerate(NETS[self.nets])),
            references=(ImageReference(_noise(8), scale=0.7),) if self.references else (),
            loras=(Lora(name=lora, strength=0.8),) if self.loras else (),
            **start,
        )

    def refusal(self) -> str:
        """Why the case cannot run; "" when it can."""
        if set(NETS[self.nets]) & _SERVED_BY_UNION and self.family.compatible_family not in UNION_KINDS:
            return f"{self.family.value} has no union nets."
        return " ".join(str(problem) for problem in validate(self.request(), TABLES[self.family]))


def _noise(seed: int) -> Tensor:
    return torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(seed))


def cells() -> Iterator[Cell]:
    """Every case."""
    for family, task, nets, references, loras in product(TABLES, Task, NETS, (False, True), (False, True)):
        yield Cell(family, task, nets, references, loras)


def case_tables() -> str:
    """The cases as Markdown, one table a family, and below it why some are refused."""
    parts = []
    for family in TABLES:
        lines = [f"### {family.value}", "", f"| | {' | '.join(task.value for task in Task)} |"]
        lines.append("|---|" + "---|" * len(Task))
        reasons: dict[str, None] = {}
        for nets in NETS:
            shown = []
            for task in Task:
                verdicts = {
                    (r, ls): Cell(family, task, nets, r, ls).refusal() for r in (False, True) for ls in (False, True)
                }
                reasons |= dict.fromkeys(reason for reason in verdicts.values() if reason)
                shown.append(_shown(verdicts))
            lines.append(f"| {nets} | {' | '.join(shown)} |")
        parts.append("\n".join([*lines, "", *(f"- {reason}" for reason in reasons)]).rstrip())
    return "\n\n".join(parts)


def _shown(verdicts: Mapping[tuple[bool, bool], str]) -> str:
    if verdicts[False, False]:
        return "-"
    names = {(True, False): "references", (False, True): "LoRAs", (True, True): "both"}
    return ", ".join(["yes", *(f"+ {name}" for extras, name in names.items() if not verdicts[extras])])


def with_tables(page: str) -> str:
    """The page with the tables of today."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{case_tables()}\n\n{END}{after}"
