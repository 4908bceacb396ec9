"""What a target (a local model family, a remote endpoint) can do, as data.

One table per target drives validation, tooltips, the badges in the browser and the support matrix in the README. A
table lists what the target accepts: whatever it does not mention is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .modality import Modality
from .problems import ProblemKind
from .request import ReferenceKind
from .scheduler import AlgorithmType, SchedulerName


@dataclass(frozen=True)
class Range:
    """The allowed values of a numeric field, both ends included. With a `multiple` of 0, every value in between."""

    minimum: float
    maximum: float
    multiple: int = 0

    def __contains__(self, value: float) -> bool:
        in_bounds = self.minimum <= value <= self.maximum
        return in_bounds and (not self.multiple or value % self.multiple == 0)


UNLIMITED = 2**31


class DenoiseUnit(Enum):
    """How `denoise` < 1 shortens a run: STEPS rounds down to whole steps, CALLS rounds up to whole network calls."""

    STEPS = "steps"
    CALLS = "calls"


@dataclass(frozen=True)
class Calls:
    """How often a scheduler calls the network: `per_step` times a step, plus `extra` (which may be negative) per run.

    A positive `extra` is spent after the first step, so a run of one step does not have it.
    """

    per_step: int = 1
    extra: int = 0

    def count(self, steps: int, denoise: float = 1.0, unit: DenoiseUnit | None = None) -> int:
        """The calls of a run. With `unit`, of the part of the run that `denoise` (0..1) leaves; 0 if it leaves nothing.

        Matches `get_timesteps` of the diffusers pipelines, including its floating-point rounding.
        """
        extra = self.extra if steps > 1 else min(self.extra, 0)
        total = steps * self.per_step + extra
        if unit is DenoiseUnit.CALLS:
            return total - int(max(total - min(total * denoise, total), 0))
        left = min(int(steps * denoise), steps) if unit is DenoiseUnit.STEPS else steps
        return left * self.per_step + extra if left > 0 else 0


@dataclass(frozen=True)
class Conflict:
    """Fields of a request that a target accepts one by one, but not all in one request."""

    fields: tuple[str, ...]
    """Names of GenerationRequest's fields."""
    kind: ProblemKind
    """The problem of a request that sets all of them. Its template takes `target`."""


@dataclass(frozen=True)
class PromptSupport:
    """Which texts a target reads, and how."""

    required: bool = False
    """An empty prompt is refused."""
    negative: bool = False
    """A negative prompt is accepted."""
    max_clip_skip: int = 0
    """How many of the last text-encoder layers can be skipped."""


@dataclass(frozen=True)
class SchedulerSupport:
    """Which schedulers can be chosen, and their options."""

    names: frozenset[SchedulerName] = frozenset()
    """The schedulers that a request can choose by name."""
    default: SchedulerName | None = None
    """The scheduler of a request that chooses none; None where it is not known."""
    missing: Mapping[SchedulerName, ProblemKind] = field(default_factory=dict[SchedulerName, ProblemKind])
    """The problem of choosing a scheduler that is not among `names`, where there is a particular reason for it. Its
    template takes `target` and `choices`."""
    karras_sigmas: frozenset[SchedulerName] = frozenset()
    """The schedulers that can use Karras sigmas."""
    algorithm_types: Mapping[SchedulerName, frozenset[AlgorithmType]] = field(
        default_factory=dict[SchedulerName, frozenset[AlgorithmType]]
    )
    """The algorithm types of each scheduler that has any."""
    max_steps: Mapping[SchedulerName, int] = field(default_factory=dict[SchedulerName, int])
    """The most steps of each scheduler that accepts fewer than the target's range of steps."""
    needs_init_image: frozenset[SchedulerName] = frozenset()
    """The schedulers that run only with an init_image and without a mask."""
    calls: Mapping[SchedulerName, Calls] = field(default_factory=dict[SchedulerName, Calls])
    """How often each scheduler calls the network, where it is not once a step."""


@dataclass(frozen=True)
class ControlSupport:
    """Which controls a target accepts. A control of strength 0 does not count."""

    modalities: frozenset[Modality] = frozenset()
    """The accepted modalities."""
    required: bool = False
    """A request without a control is refused."""
    maximum: int = 0
    """The most controls of a request; 0: the target accepts none."""
    strength: Range | None = None
    """The range of a control's strength; None: any."""
    detects: bool = False
    """The target can make the control map from an image (`detect` SERVICE)."""
    windows: bool = False
    """A control can start after the first step or end before the last."""
    masks: bool = False
    """A mask can limit any control to an area."""
    masked_modalities: frozenset[Modality] = frozenset()
    """The modalities that accept a mask even without `masks`, because it is part of the control (inpaint)."""
    remedy: str = "Remove it, or use one of these."
    """What to do about a control of another modality, as a whole sentence."""
    remedies: Mapping[Modality, str] = field(default_factory=dict[Modality, str])
    """What to do about a control of one modality in particular; goes before `remedy`."""


@dataclass(frozen=True)
class ReferenceSupport:
    """Which reference images (IP-Adapter) a target accepts. A reference of scale 0 does not count."""

    kinds: frozenset[ReferenceKind] = frozenset()
    """The accepted kinds."""
    maximum: int = 0
    """The most references of a request; 0: the target accepts none."""
    scale: Range | None = None
    """The range of a reference's scale; None: any."""
    windows: bool = False
    """A reference can start after the first step or end before the last."""
    masks: bool = False
    """A mask can limit a reference to an area."""


@dataclass(frozen=True)
class LoraSupport:
    """How many LoRAs a target accepts. A LoRA of strength 0 does not count."""

    maximum: int = 0
    """The most LoRAs of a request; 0: the target accepts none."""
    strength: Range | None = None
    """The range of a LoRA's strength; None: any."""


@dataclass(frozen=True)
class InitImageSupport:
    """Whether a run can start from an image."""

    accepted: bool = False
    """Image to image: an init_image is accepted."""
    inpainting: bool = False
    """A mask over the init_image is accepted."""
    mask_required: bool = False
    """The model only inpaints: it cannot run without a mask."""
    denoise_unit: DenoiseUnit | None = None
    """What `denoise` is a share of, where it shortens the run and must leave something of it."""


@dataclass(frozen=True)
class Capabilities:
    """The table of one target. What a table does not mention, its target does not accept."""

    target: str
    """The target's name in messages and in the support matrix."""
    prompts: PromptSupport = PromptSupport()
    ranges: Mapping[str, Range] = field(default_factory=dict[str, Range])
    """The range of each numeric field of GenerationRequest that the target limits."""
    sizes: tuple[tuple[int, int], ...] = ()
    """The only pairs of width and height, where the target has a fixed list."""
    schedulers: SchedulerSupport = SchedulerSupport()
    controls: ControlSupport = ControlSupport()
    references: ReferenceSupport = ReferenceSupport()
    loras: LoraSupport = LoraSupport()
    init_images: InitImageSupport = InitImageSupport()
    vae: bool = False
    """Another VAE than the model's own can be chosen."""
    upscale: bool = False
    """The target can enlarge its results."""
    conflicts: tuple[Conflict, ...] = ()
    """Combinations of fields that the target does not accept."""
