"""What a release keeps of its source's structure: landmarks, pose, edges, depth, a face at all."""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
import numpy as np
from numpy.typing import NDArray

from privbench.types import Evidence, Floats, ImageSet, Output
from privbench_plugins.conditions import canny
from privbench_plugins.geometry import load_geometry
from privbench_plugins.metrics._common import known_mean, others, release

Pixels = NDArray[np.uint8]

MOST_DEGREES = 90.0
_CHANNELS = 128  # maps that OpenCV dilates at once


class Structure(ABC):
    """Rows are numbers per image; NaN where one is undefined."""

    @abstractmethod
    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One for each column of the rows."""

    @abstractmethod
    def rows(self, evidence: Evidence) -> Floats:
        """(N, M)."""

    def chance(self, evidence: Evidence) -> Floats:
        """There is none; `@other` outputs say what an unrelated face scores."""
        return np.full(len(self.outputs(evidence)), np.nan)

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """The weighted means."""
        return known_mean(rows, weights)


class LandmarkError(Structure):
    """Distance of five landmarks, and of the head's angles, both estimated from pixels."""

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """Against the own source, and against another person's."""
        return tuple(
            Output(f"{name}{kind}", "lower", worst, unit)
            for kind in ("", "@other")
            for name, worst, unit in (
                ("landmark-error", 1.0, "eye distances"),
                ("yaw-error", MOST_DEGREES, "degrees"),
                ("pitch-error", MOST_DEGREES, "degrees"),
            )
        )

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 6)."""
        pair, geometry = release(evidence), load_geometry()
        source, released = images(pair.source), images(pair.released)
        found = [geometry.landmarks_and_pose(x) for x in (source, released)]
        points, angles = ([x.astype(np.float64) for x in both] for both in zip(*found, strict=True))
        other, apart = others(pair.subject)
        mine = _errors(points[0], points[1], angles[0], angles[1])
        theirs = _errors(points[0][other], points[1], angles[0][other], angles[1])
        return np.concatenate([mine, np.where(apart[:, None], theirs, np.nan)], axis=1)


class ConditionAgreement(Structure):
    """Edges of the release against edges of the source, and depth on the source's face."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """Edges: F, precision, recall; depth error; F and depth error against another person."""
        return (
            Output("edge-f", "higher", 0.0),
            Output("edge-precision", "higher", 0.0),
            Output("edge-recall", "higher", 0.0),
            Output("depth-error", "lower", 1.0),
            Output("edge-f@other", "higher", 0.0),
            Output("depth-error@other", "lower", 1.0),
        )

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 6)."""
        pair, geometry = release(evidence), load_geometry()
        source, released = images(pair.source), images(pair.released)
        other, apart = others(pair.subject)
        wanted, found = canny(source) > 0, canny(released) > 0
        reach = max(1, round(self.tolerance * min(source.shape[1:3]) / 128))
        near_wanted, near_found = near(wanted, reach), near(found, reach)
        mine = edge_agreement(found, wanted, near_found, near_wanted)
        theirs = edge_agreement(found, wanted[other], near_found, near_wanted[other])[:, 0]
        depth = [geometry.depth(x) for x in (source, released)]
        columns = [
            *mine.T,
            depth_error(depth[0], depth[1]),
            np.where(apart, theirs, np.nan),
            np.where(apart, depth_error(depth[0][other], depth[1]), np.nan),
        ]
        return np.stack(columns, axis=1)


class Detection(Structure):
    """Whether dlib's HOG detector finds a face (King 2009; Dalal and Triggs 2005)."""

    def __init__(self, doublings: int) -> None:
        self.doublings = doublings

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """On releases, and on sources."""
        return (Output("detected", "higher", 0.0), Output("detected@source", "higher", 0.0))

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 2), 0 or 1."""
        import dlib

        pair, detector = release(evidence), dlib.get_frontal_face_detector()
        found = [
            [len(detector(image, self.doublings)) > 0 for image in images(x)]
            for x in (pair.released, pair.source)
        ]
        return np.array(found, dtype=np.float64).T


def images(pixels: ImageSet) -> Pixels:
    """(N, H, W, 3) uint8."""
    return np.ascontiguousarray(pixels.pixels.permute(0, 2, 3, 1).numpy())


def landmark_error(wanted: Floats, found: Floats) -> Floats:
    """(N,) mean distance of 5 points (N, 5, 2), in distances of `wanted`'s eyes, at most 1.

    Capped, so that one lost face does not decide the mean.
    """
    eyes = np.linalg.norm(wanted[:, 0] - wanted[:, 1], axis=1)
    error = np.linalg.norm(wanted - found, axis=2).mean(1)
    shares: Floats = np.minimum(error / np.maximum(eyes, 1e-6), 1.0)
    return shares


def _errors(wanted: Floats, found: Floats, angles: Floats, turned: Floats) -> Floats:
    """(N, 3) landmark error, and absolute differences of yaw and pitch in degrees."""
    turn = np.minimum(np.abs(angles - turned), MOST_DEGREES)
    return np.concatenate([landmark_error(wanted, found)[:, None], turn], axis=1)


def near(edges: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """(N, H, W) pixels within a disc of radius `reach` around an edge."""
    size = 2 * reach + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    planes = np.ascontiguousarray(edges.transpose(1, 2, 0), dtype=np.uint8)
    blocks = [
        cv2.dilate(planes[:, :, i : i + _CHANNELS], disc).reshape(*planes.shape[:2], -1)
        for i in range(0, planes.shape[2], _CHANNELS)
    ]
    return np.concatenate(blocks, axis=2).transpose(2, 0, 1) > 0


def edge_agreement(
    found: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    near_found: NDArray[np.bool_],
    near_wanted: NDArray[np.bool_],
) -> Floats:
    """(N, 3) F, precision and recall of edges.

    NaN: the precision of no edges, the recall of no edges; F is 0 where one map alone is empty,
    so that a release without lines is no success.
    """
    precision, recall = _share(found, near_wanted), _share(wanted, near_found)
    p, r = np.nan_to_num(precision), np.nan_to_num(recall)
    f = np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)
    f[np.isnan(precision) & np.isnan(recall)] = np.nan
    return np.stack([f, precision, recall], axis=1)


def _share(edges: NDArray[np.bool_], region: NDArray[np.bool_]) -> Floats:
    count = edges.sum((1, 2))
    inside = (edges & region).sum((1, 2))
    shares: Floats = np.divide(inside, count, out=np.full(len(count), np.nan), where=count > 0)
    return shares


def depth_error(wanted: Pixels, found: Pixels) -> Floats:
    """(N,) mean absolute difference, as a share of the range, where `wanted` (N, H, W) is not
    background; NaN where all of it is.
    """
    face = wanted > 0
    difference = np.abs(wanted.astype(np.float64) - found) / 255
    count = face.sum((1, 2))
    out = np.full(len(count), np.nan)
    total = (difference * face).sum((1, 2))
    error: Floats = np.divide(total, count, out=out, where=count > 0)
    return error
