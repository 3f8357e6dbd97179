"""Face and eye regions from landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from privbench_plugins.regions import eye_band, face_mask

FRONTAL = np.array([[50, 50], [78, 50], [64, 66], [54, 80], [74, 80]], np.float32)
CENTRE = np.array([64, 64], np.float32)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned clockwise (on screen) about the image's centre."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    moved: np.ndarray = ((points - CENTRE) @ turn.T + CENTRE).astype(np.float32)
    return moved


def at(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of one mask at x, y points."""
    x, y = np.round(points).astype(int).T
    values: np.ndarray = mask[y, x]
    return values


@pytest.mark.parametrize("degrees", [-30, 0, 20])
def test_the_regions_turn_with_the_head(degrees: float) -> None:
    """The mask covers all landmarks, the band both eyes and not the mouth, at any roll."""
    points = turned(FRONTAL, degrees)
    mask, band = face_mask(points[None], 128, 128)[0], eye_band(points[None], 128, 128)[0]
    chin = turned(np.array([[64, 100]], np.float32), degrees)
    assert (at(mask, points) == 1).all()
    assert at(mask, chin)[0] == 1
    assert at(band, points).tolist() == [True, True, False, False, False]


def test_regions_grow_with_the_image() -> None:
    """At twice the size they cover the same share of the image."""
    points = np.stack([FRONTAL, turned(FRONTAL, 15)])
    for region in (face_mask, eye_band):
        small = region(points, 128, 128).astype(float)
        large = region(points * np.float32(2) + np.float32(0.5), 256, 256).astype(float)
        assert np.allclose(small.mean((1, 2)), large.mean((1, 2)), rtol=0.02)


def test_the_soft_edge_lies_outside() -> None:
    """Feathering only adds: what a hard mask covers is covered whole, and values fall to 0."""
    hard = face_mask(FRONTAL[None], 128, 128, feather=0)
    soft = face_mask(FRONTAL[None], 128, 128, feather=0.3)
    assert set(np.unique(hard)) == {0.0, 1.0}
    assert (soft[hard == 1] == 1).all()
    assert ((soft > 0) & (soft < 1)).any()
    assert soft.dtype == np.float32
    assert soft.min() == 0


def test_each_face_has_its_own_region() -> None:
    """A face's region does not depend on the batch; non-square images keep their shape."""
    points = np.stack([turned(FRONTAL, d) for d in (0, 10, 25)])
    for region in (face_mask, eye_band):
        whole = region(points, 100, 140)
        assert whole.shape == (3, 100, 140)
        assert (region(points[1:2], 100, 140)[0] == whole[1]).all()
        assert region(points[:0], 100, 140).shape == (0, 100, 140)


def test_degenerate_faces_still_have_a_region() -> None:
    """Landmarks on one spot (a hopeless estimate) give a finite region around it."""
    points = np.full((1, 5, 2), 64, np.float32)
    assert face_mask(points, 128, 128)[0, 64, 64] == 1
    assert eye_band(points, 128, 128)[0, 64, 64]


def test_unusable_landmarks_are_refused() -> None:
    """Another shape, NaN, or a negative feather: an error that names what was expected."""
    with pytest.raises(ValueError, match=r"\(N, 5, 2\)"):
        face_mask(FRONTAL, 128, 128)
    with pytest.raises(ValueError, match="finite"):
        eye_band(np.full((1, 5, 2), np.nan, np.float32), 128, 128)
    with pytest.raises(ValueError, match="feather"):
        face_mask(FRONTAL[None], 128, 128, feather=-1)
