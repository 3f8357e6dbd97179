"""The data that flows between steps, and the interfaces that plugins implement.

Shapes are written (N, 3, H, W). Images are uint8 at rest (`ImageSet`) and float32 RGB in
[0, 1] where a plugin computes (`ImageBatch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from privbench.errors import DataError
from privbench.progress import Reporter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.str_]

UNKNOWN = -1
"""Subject of an image whose identity the reader may not know."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """What an anonymizer sees at once.

    Attributes:
        pixels: (N, 3, H, W) float32 RGB in [0, 1], on the device that computes.
        subject: (N,) int64, `UNKNOWN` where withheld.
        keys: N distinct sample ids.
    """

    pixels: torch.Tensor
    subject: Ints
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images at rest.

    Attributes:
        pixels: (N, 3, H, W) uint8 RGB on the CPU.
        subject: (N,) int64, `UNKNOWN` where withheld.
        keys: N distinct sample ids.
        attributes: what the pictures show, e.g. `hair`, to (N,) labels; "" where unknown.
            Empty where the data set has none. Only metrics read them.
    """

    pixels: torch.Tensor
    subject: Ints
    keys: tuple[str, ...]
    attributes: Mapping[str, Labels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.keys)
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[:2] != (n, 3):
            raise DataError(
                f"Images must be uint8 of shape ({n}, 3, H, W); got {self.pixels.dtype} {shape}."
            )
        if self.subject.shape != (n,):
            raise DataError(f"subject must have shape ({n},); got {self.subject.shape}.")
        if len(set(self.keys)) != n:
            raise DataError("Sample ids must be distinct.")
        for name, labels in self.attributes.items():
            if labels.shape != (n,):
                raise DataError(f"Attribute {name!r} must have shape ({n},); got {labels.shape}.")

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: Sequence[int] | Ints) -> ImageSet:
        """The images at `index`, in that order."""
        rows = np.asarray(index, dtype=np.int64)
        return ImageSet(
            self.pixels[torch.from_numpy(rows)],
            self.subject[rows],
            tuple(self.keys[i] for i in rows),
            {name: labels[rows] for name, labels in self.attributes.items()},
        )

    def floats(
        self, index: Sequence[int] | Ints | slice = slice(None), device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """(n, 3, H, W) float32 in [0, 1] on `device`; bytes travel, floats are made there."""
        rows = index if isinstance(index, slice) else torch.as_tensor(np.asarray(index))
        return self.pixels[rows].to(device, non_blocking=True).float().div_(255)

    def batch(self, device: torch.device | str = "cpu") -> ImageBatch:
        """All images as one batch."""
        return ImageBatch(self.floats(device=device), self.subject, self.keys)


def quantize(pixels: torch.Tensor) -> torch.Tensor:
    """Floats in [0, 1] to uint8 on the CPU, rounding to nearest; out-of-range is clipped."""
    return pixels.detach().clamp(0, 1).mul(255).round_().to(torch.uint8).cpu()


class Anonymizer(Protocol):
    """Turns face images into released images.

    Two attributes are read where there are any: `batch_size` (int), images that are really
    computed at once, fewer than asked for where memory ran out; `resolution` (int), side in
    pixels at which a model works.
    """

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Anonymize each image on its own.

        Args:
            batch: N images. `subject` is withheld.
            seeds: one 63-bit seed per image; all randomness of image i comes from `seeds[i]`.

        Returns:
            (N, 3, H, W) float in [0, 1], same N, H and W, on any device. Image i must not
            depend on its place in the batch or on the other images.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The most prominent face of each image.

    Attributes:
        points: (N, 5, 2) float32 pixel coordinates (x, y) of the eye on the image's left, the one
            on its right, the tip of the nose, and the corners of the mouth on the left and on the
            right. NaN where no face was found.
        score: (N,) float32, larger is surer; NaN where no face was found.
    """

    points: NDArray[np.float32]
    score: NDArray[np.float32]

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) whether there is a face."""
        return np.asarray(np.isfinite(self.points).all(axis=(1, 2)))


class Detector(Protocol):
    """Finds faces: the first step of alignment."""

    def detect(self, pixels: torch.Tensor) -> Detections:
        """Find the most prominent face of each image, on its own.

        Args:
            pixels: (N, 3, H, W) uint8 RGB on the CPU.
        """
        ...


@dataclass(frozen=True, slots=True)
class FoundDetector:
    """A detector that a data set's setting names.

    Attributes:
        build: makes it.
        facts: for the data set's digest and the record: id, version, settings without paths,
            hashes of weights and code.
    """

    build: Callable[[], Detector]
    facts: Mapping[str, Any]


FindDetector = Callable[[str], FoundDetector]
"""`ID` or `ID:VALUE` to a detector; raises what planning raises for an unknown plugin."""


@runtime_checkable
class Fittable(Protocol):
    """An anonymizer that must see reference images first (`Tags.fit_on` says which)."""

    def fit(self, reference: ImageSet) -> Anonymizer:
        """Return a new, fitted anonymizer; `self` is unchanged."""
        ...


class Oracle(Protocol):
    """Counted black-box access to the anonymizer under attack."""

    @property
    def queries(self) -> int:
        """Images asked for so far."""
        ...

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Anonymize the attacker's own images.

        Args:
            images: attacker images; an evaluation image is refused.
            draw: which independent draw of a stochastic anonymizer.

        Raises:
            PluginError: an evaluation image, or an own image under an evaluation image's id, was
                asked for; or training, and inverting, are over.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AttackerView:
    """Everything an attack may train on.

    Attributes:
        train: clear images of attacker-train identities, subjects known.
        validation: clear images of attacker-validation identities, subjects known; the only
            data on which checkpoints, thresholds and settings may be chosen.
        oracle: the anonymizer, or None below the adaptive threat model.
        seed: all randomness comes from it.
        device: where to compute.
        reporter: progress.
        draws: how many independent draws of each probe the release holds; the oracle answers
            for as many.
    """

    train: ImageSet
    validation: ImageSet
    oracle: Oracle | None
    seed: int
    device: torch.device
    reporter: Reporter
    draws: int = 1


class Scorer(Protocol):
    """A trained re-identification attack, with a gallery enrolled.

    `facts`, where a scorer has it, is a JSON-able mapping for the record, read after scoring: in
    how many probes no face was found, say.
    """

    def score(self, probes: ImageSet) -> torch.Tensor:
        """Similarity of N probes to the G enrolled images.

        Score (i, j) must not depend on the other probes or references: trials put scores of
        several enrolments side by side.

        Returns:
            (N, G) float; larger means likelier the same person.
        """
        ...


@runtime_checkable
class DrawScorer(Protocol):
    """A scorer that knows what to do with several released draws of the same probes.

    For one without this method the harness takes the mean of the draws' scores.
    """

    def score_draws(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """Similarity of N probes to the G enrolled images.

        Args:
            draws: K releases of the same N probes, in the same order.

        Returns:
            (N, G) float, as `Scorer.score`.
        """
        ...


class TrainedAttack(Protocol):
    """A trained re-identification attack.

    Attributes:
        fusion: how scores against several references of one person combine.
        report: JSON-able facts for the record (settings chosen on attacker-validation, history).
    """

    fusion: Literal["max", "mean"]
    report: Mapping[str, Any]

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Enrol a labelled gallery (`subject` are 0..S-1, unrelated to the data set's ids).

        Args:
            gallery: G reference images.
            anonymized: the references are released images rather than clear photographs.
        """
        ...


class Attack(Protocol):
    """Learns, from the attacker's own data, to link released images to people."""

    def train(self, view: AttackerView) -> TrainedAttack:
        """Return a new trained attack; `self` is unchanged."""
        ...


class TrainedInverter(Protocol):
    """A trained inversion attack: it gives the anonymized face back.

    The harness lets recognisers that the attack has never seen judge what it makes.
    """

    @property
    def report(self) -> Mapping[str, Any]:
        """JSON-able facts for the record: what was chosen on attacker-validation, and why."""
        ...

    def invert(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """Reconstruct the sources of released images.

        The oracle of the view still answers meanwhile, for an attack that compares what the
        anonymizer makes of a candidate with the release; it goes on counting, and goes on
        refusing evaluation images.

        Args:
            draws: K releases of the same N photographs, in the same order, under neutral keys.

        Returns:
            (N, R, 3, H, W) float in [0, 1], on any device: R >= 1 reconstructions of each
            photograph, the best first. A recogniser averages its features over them.
            Reconstruction i may depend on release i alone.
        """
        ...


class Inverter(Protocol):
    """An attack that gives images back instead of scores (`Tags.inverts`)."""

    def train(self, view: AttackerView) -> TrainedInverter:
        """Return a new trained inverter; `self` is unchanged."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ValidationScores:
    """What an attack scores on the attacker's own held-out people.

    Attributes:
        scores: (V, V) float64; row i is photo i as a probe, column j photo j as a reference.
        subject: (V,) person 0..P-1 of each photo.
    """

    scores: Floats
    subject: Ints


class FittedScoreFusion(Protocol):
    """Several attacks made one, with weights from attacker-validation.

    Attributes:
        fusion: how scores against several references of one person combine.
        report: JSON-able facts for the record.
    """

    fusion: Literal["max", "mean"]
    report: Mapping[str, Any]

    def combine(self, scores: Mapping[str, Floats]) -> Floats:
        """(N, G) scores of each member, by its label, to (N, G) scores.

        Entry (i, j) may depend on the members' entries (i, j) alone.
        """
        ...


class ScoreFusion(Protocol):
    """An attack made of other attacks (`Tags.fuses`): it sees their scores and no image."""

    def fit(self, validation: Mapping[str, ValidationScores]) -> FittedScoreFusion:
        """Return a new fitted fusion; `self` is unchanged.

        Args:
            validation: each member's scores on attacker-validation, by the member's label.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Identification:
    """Evidence of an identification trial, with the truth that the harness holds.

    Attributes:
        scores: (N, S) float64, probe i against enrolled person j; larger is likelier.
        mated: (N,) column of the true person of each probe.
        subject: (N,) the probe's identity; the unit that intervals resample.
        impostors: (V,) float64 scores between different people of attacker-validation, fused as
            in this trial: the only scores on which a threshold may be fixed. Empty where
            unknown.
    """

    scores: Floats
    mated: Ints
    subject: Ints
    impostors: Floats = field(default_factory=lambda: np.empty(0))


NOT_ENROLLED = -1
"""`OpenSet.mated` of a probe whose person is in no gallery."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenSet:
    """Evidence of an identification trial in which some probes are of people not enrolled.

    Attributes:
        scores: (N + M, S) float64, probe i against enrolled person j; mated probes come first.
        mated: (N + M,) column of the true person, `NOT_ENROLLED` for the M non-mated probes.
        subject: (N + M,) the probe's identity; the unit that intervals resample.
    """

    scores: Floats
    mated: Ints
    subject: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """Evidence for utility metrics: sources and what was released for them, row by row.

    What the sources show is in `source.attributes`; data sets without labels leave it empty.
    """

    source: ImageSet
    released: ImageSet
    subject: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What one recogniser, which the inversion attack has never seen, makes of the probes.

    Attributes:
        judge: its name.
        released: evidence with the released probes as they are, primary trial; without impostors.
        inverted: evidence with their reconstructions, same trial and gallery.
        released_source: (N,) score of each released probe against its own source photo.
        inverted_source: (N,) the same of its reconstruction.
    """

    judge: str
    released: Identification
    inverted: Identification
    released_source: Floats
    inverted_source: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """Evidence of an inversion attack, row by row.

    Attributes:
        source: clear probes.
        released: what was released for them.
        inverted: their reconstructions, the best of each.
        subject: (N,) identity of each probe.
        judgements: one per recogniser, the one that attacker-validation chose first.
    """

    source: ImageSet
    released: ImageSet
    inverted: ImageSet
    subject: Ints
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """Evidence of a membership inference attack, image by image.

    Attributes:
        scores: (N,) larger means likelier a member; the direction is fixed by the attack.
        member: (N,) bool, whether the target was trained on the image.
        subject: (N,) identity.
        calibration: (C,) scores of the attacker's own images, none of them a member; from these
            alone a threshold may come.
    """

    scores: Floats
    member: NDArray[np.bool_]
    subject: Ints
    calibration: Floats


Evidence = Identification | OpenSet | Release | Inversion | Membership


@dataclass(frozen=True, slots=True)
class Output:
    """One number that a metric reports.

    Attributes:
        name: e.g. `rank-1`.
        protects: whether a higher or a lower value means better protection or utility.
        worst: the value at no protection (or no utility).
        unit: `share`, `dB`, `people`, ...
    """

    name: str
    protects: Literal["higher", "lower"]
    worst: float
    unit: str = "share"


class Reducer(Protocol):
    """Numbers from rows: all that resampling needs of a metric."""

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Numbers from rows, for R weightings at once.

        Args:
            rows: (N, D) as `rows` made them.
            weights: (R, N) non-negative multiplicities; all ones is the point estimate, a
                bootstrap resample counts how often each row was drawn.

        Returns:
            (R, M); NaN where a resample leaves a number undefined.
        """
        ...


class Metric(Reducer, Protocol):
    """Rows first, numbers later: rows are an artefact, so intervals need no second run.

    `Tags.evidence` of its spec says which evidence it takes. A metric that does not apply to
    the evidence (no labels, say) has no outputs and rows of width 0: it is left blank.
    """

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """The M numbers that `reduce` returns for this evidence."""
        ...

    def chance(self, evidence: Evidence) -> Floats:
        """(M,) value of each output under guessing; NaN where there is none."""
        ...

    def rows(self, evidence: Evidence) -> Floats:
        """(N, D) float64; row i from sample i alone.

        What is learnt from the other samples (a cross-fitted classifier) or compared with
        them (a mismatched baseline) is part of the row: intervals hold it fixed.
        """
        ...


@runtime_checkable
class FittableMetric(Protocol):
    """A metric that must learn from background images first (`Tags.fit_on="background"`)."""

    def fit(self, reference: ImageSet) -> Metric:
        """Return a new, fitted metric; `self` is unchanged.

        Only `rows` may need what was learnt: stored rows are reduced again without it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Attributes:
        name: the output's name.
        value: point estimate.
        low: lower end of the 95 % interval, None where undefined.
        high: upper end.
        n: rows it rests on.
        clusters: identities that were resampled.
        chance: value under guessing, None where there is none.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    chance: float | None = None
    protects: Literal["higher", "lower"] = "lower"
    worst: float = 1.0
    unit: str = "share"


@dataclass(frozen=True, slots=True)
class Timing:
    """All timed batches of one stage.

    Attributes:
        stage: what was timed.
        seconds: one sample per batch, synchronised with the device.
        images: images per batch (padding excluded).
        warmup: leading samples that statistics leave out.
        batch_size: shape that was run, padding included.
        resolution: (height, width).
        peak_bytes: peak device memory (GPU) or largest resident set seen after a batch (CPU).
        device: fingerprint, see `privbench.timing.fingerprint`.
        at_once: images that were really computed at once; fewer than `batch_size` where memory
            ran out. None: `batch_size`.
    """

    stage: str
    seconds: tuple[float, ...]
    images: tuple[int, ...]
    warmup: int
    batch_size: int
    resolution: tuple[int, int]
    peak_bytes: int
    device: Mapping[str, str] = field(default_factory=dict)
    at_once: int | None = None
