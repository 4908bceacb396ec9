"""What a target (a local model family, a remote endpoint) can do, as data.

One table per target drives validation, tooltips, the badges in the browser and the support matrix in the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .modality import Modality
from .request import ReferenceKind
from .scheduler import AlgorithmType, SchedulerName


@dataclass(frozen=True)
class Range:
    """The allowed values of a numeric field; `multiple` of 0 means any value in between."""

    minimum: float
    maximum: float
    multiple: int = 0

    def __contains__(self, value: float) -> bool:
        in_bounds = self.minimum <= value <= self.maximum
        return in_bounds and (not self.multiple or value % self.multiple == 0)

    def __str__(self) -> str:
        span = f"{self.minimum:g} to {self.maximum:g}"
        return f"a multiple of {self.multiple} from {span}" if self.multiple else f"from {span}"


UNLIMITED = 2**31


class Share(Enum):
    """What is left of a run by `denoise`: so many whole steps, or so many calls of the network, a begun one wholly."""

    STEPS = "steps"
    CALLS = "calls"


@dataclass(frozen=True)
class Calls:
    """How often a scheduler calls the network: `each` times a step, and `more` (or, below 0, fewer) times in all.

    A further call comes after the first step, so a run of one step has none.
    """

    each: int = 1
    more: int = 0

    def of(self, steps: int, denoise: float = 1.0, share: Share | None = None) -> int:
        """The calls of a run; with `share` of the part of it that `denoise` (0..1) leaves, 0 where it leaves nothing.

        The arithmetic is that of diffusers, to the last bit of a float: get_timesteps of the pipelines.
        """
        more = self.more if steps > 1 else min(self.more, 0)
        whole = steps * self.each + more
        if share is Share.CALLS:
            return whole - int(max(whole - min(whole * denoise, whole), 0))
        left = min(int(steps * denoise), steps) if share is Share.STEPS else steps
        return left * self.each + more if left > 0 else 0


@dataclass(frozen=True)
class Conflict:
    """Fields of a request that a target can use one by one, but not all in one request; why, and what to do."""

    fields: tuple[str, ...]
    reason: str
    remedy: str


@dataclass(frozen=True)
class Capabilities:
    """The table of one target.

    `ranges` is keyed by the names of GenerationRequest's numeric fields, and by `strength` (of a control), `scale` (of
    a reference) and `lora_strength`; a 0 of these three means "not there" and is always allowed. `sizes` are the only
    pairs of width and height, where there are such. A `max_` of 0 means the target has no such thing.
    `missing_schedulers` gives the reason why a name that users may expect is not among `schedulers`; `karras_sigmas`
    and `algorithm_types` say which of them have these options, `max_steps` which of them take fewer steps than `ranges`
    allows, `image_schedulers` which of them work on an init_image only and without a mask, `default_scheduler` which
    one a request without a choice gets, where that is known. `masked_modalities` take a mask as a part of what they are
    (inpaint), even where `control_masks` is off. With `denoise_share`, `denoise` is a share of the run, of which
    something must be left. `calls` says which schedulers call the network otherwise than once a step. `needs_mask`
    marks a model that only redraws parts of pictures. `control_remedy` is what a user can do about a control the target
    lacks, and `control_remedies` about some of them in particular.
    """

    target: str
    modalities: frozenset[Modality]
    schedulers: frozenset[SchedulerName]
    default_scheduler: SchedulerName | None = None
    missing_schedulers: Mapping[SchedulerName, str] = field(default_factory=dict)
    karras_sigmas: frozenset[SchedulerName] = frozenset()
    algorithm_types: Mapping[SchedulerName, frozenset[AlgorithmType]] = field(default_factory=dict)
    max_steps: Mapping[SchedulerName, int] = field(default_factory=dict)
    image_schedulers: frozenset[SchedulerName] = frozenset()
    ranges: Mapping[str, Range] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    min_controls: int = 0
    max_controls: int = UNLIMITED
    max_references: int = 0
    reference_kinds: frozenset[ReferenceKind] = frozenset()
    max_loras: int = 0
    detects: bool = False
    control_windows: bool = True
    control_masks: bool = False
    masked_modalities: frozenset[Modality] = frozenset()
    reference_windows: bool = False
    reference_masks: bool = False
    image_to_image: bool = False
    inpainting: bool = False
    upscale: bool = False
    own_vae: bool = False
    needs_prompt: bool = False
    negative_prompt: bool = True
    denoise_share: Share | None = None
    calls: Mapping[SchedulerName, Calls] = field(default_factory=dict)
    needs_mask: bool = False
    conflicts: tuple[Conflict, ...] = ()
    control_remedy: str = "Remove it or use one of these."
    control_remedies: Mapping[Modality, str] = field(default_factory=dict)
