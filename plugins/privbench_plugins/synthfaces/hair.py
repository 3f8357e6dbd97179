"""Hair as displaced shells over the skull, falling curtains and tied knots, with soft edges."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .arrays import Floats, Ints, f32, ramp, unit
from .assets import SKIN, Head
from .identity import Hair
from .scalp import CENTRE, HANGING, inside_hairline

COLUMNS, ROWS, FALL_ROWS = 120, 34, 18
_LOWEST_ELEVATION = -46.0
_PAINTED = {"bald", "shaved"}
_THICKNESS = {
    "receding": 0.05,
    "short": 0.085,
    "side-parted": 0.15,
    "slicked back": 0.10,
    "curly": 0.24,
    "afro": 0.36,
    "bob": 0.15,
    "long": 0.13,
    "wavy": 0.16,
    "bun": 0.06,
    "ponytail": 0.06,
}
_TAPER = {"curly": 13.0, "afro": 24.0, "short": 9.0, "receding": 9.0, "side-parted": 7.0}


@dataclass(frozen=True)
class SkullMap:
    """Rays from the centre of the skull. weights: sparse (COLUMNS * ROWS, V) onto the mesh.

    azimuth, elevation: (COLUMNS * ROWS,) in degrees, row-major by row.
    """

    weights: sparse.csr_matrix
    azimuth: Floats
    elevation: Floats


@dataclass(frozen=True)
class HairMesh:
    """A hair surface.

    positions, tangents: (M, 3). uv: (M, 2), across and along the strands. edge: (M,) solid where
    positive, measured in units of the soft border. crown: (M,) damps strands where they converge.
    """

    positions: Floats
    triangles: Ints
    uv: Floats
    edge: Floats
    tangents: Floats
    crown: Floats


def map_skull(head: Head) -> SkullMap:
    """Cast rays from the centre of the skull onto the rest mesh, bridging the ears."""
    azimuth = np.linspace(-180, 180, COLUMNS)
    elevation = np.linspace(89.5, _LOWEST_ELEVATION, ROWS)
    around, up = (f32(a).reshape(-1) for a in np.meshgrid(azimuth, elevation))
    a, e = np.radians(around), np.radians(up)
    rays = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], 1)
    skin = head.triangles[head.material == SKIN]
    skull = skin[~head.is_ear[skin].any(1) & (head.rest[skin][:, :, 1].min(1) > 5.9)]
    triangle, weights = _cast(rays, head.rest[skull])
    hit = np.nonzero(triangle >= 0)[0]
    rows = np.repeat(hit, 3)
    known = sparse.csr_matrix(
        (weights[hit].reshape(-1), (rows, skull[triangle[hit]].reshape(-1))),
        shape=(len(rays), len(head.rest)),
    )
    return SkullMap(_bridge(known, triangle < 0), around, up)


def _cast(rays: Floats, corners: Floats) -> tuple[Ints, Floats]:
    """Farthest hit of each ray from CENTRE: triangle (-1: none) and barycentric weights."""
    a, b, c = (corners[:, k] - CENTRE for k in range(3))
    planes = np.linalg.inv(np.stack([a, b, c], 2).astype(np.float64))
    parts = [rays @ planes[:, k].T for k in range(3)]
    inside = (parts[0] > -1e-6) & (parts[1] > -1e-6) & (parts[2] > -1e-6)
    total = parts[0] + parts[1] + parts[2]
    distance = np.where(inside & (total > 0), 1 / np.where(total > 0, total, 1), -1.0)
    best = distance.argmax(1)
    index = np.arange(len(rays))
    hit = np.stack([part[index, best] for part in parts], 1)
    weights = hit / np.where(total[index, best] == 0, 1, total[index, best])[:, None]
    return np.where(distance[index, best] > 0, best, -1), f32(weights)


def _bridge(known: sparse.csr_matrix, missing: np.ndarray) -> sparse.csr_matrix:
    """Fill the rows of rays that hit nothing with the harmonic mean of their neighbours."""
    holes = np.nonzero(missing)[0]
    if not len(holes):
        return known
    row, column = np.divmod(holes, COLUMNS)
    count = COLUMNS * ROWS
    near = []
    for step_row, step_column in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        r = np.clip(row + step_row, 0, ROWS - 1)
        near.append(r * COLUMNS + (column + step_column) % COLUMNS)
    ones = np.ones(4 * len(holes))
    rows = np.tile(np.arange(len(holes)), 4)
    graph = sparse.csr_matrix((ones, (rows, np.concatenate(near))), shape=(len(holes), count))
    system = 4 * np.eye(len(holes)) - graph[:, holes].toarray()
    filled = sparse.csr_matrix(np.linalg.solve(system, (graph @ known).toarray()))
    place = sparse.csr_matrix(
        (np.ones(len(holes)), (holes, np.arange(len(holes)))), shape=(count, len(holes))
    )
    return (known + place @ filled).tocsr()


def build_hair(skull: SkullMap, hair: Hair, positions: Floats, ear_reach: float) -> list[HairMesh]:
    """Hair surfaces over the identity's mesh `positions` (V, 3), inner ones first.

    `ear_reach` is the largest |x| of the ears, which hanging hair has to clear.
    """
    if hair.style in _PAINTED:
        return []
    base = f32(skull.weights @ positions)
    meshes = []
    for level in (0.7, 1.0):
        parts = [_cap(skull, hair, base, level)]
        if hair.style in HANGING:
            parts.append(_curtain(skull, hair, base, level, ear_reach))
        if hair.style == "bun":
            parts.append(_knot(base, f32([0.0, 0.22, -0.42]), f32([0.3, 0.27, 0.27]) * level))
        if hair.style == "ponytail":
            parts.append(_tail(base, hair, level))
        meshes.append(_join(parts))
    return meshes


def _outward(base: Floats) -> Floats:
    """Unit directions (n, 3) from the middle of the skull."""
    grid = base.reshape(ROWS, COLUMNS, 3)
    middle = grid[ROWS // 3 : ROWS * 2 // 3].mean((0, 1))
    return unit(base - middle)


def _lumps(hair: Hair, azimuth: Floats, elevation: Floats) -> Floats:
    """Smooth bumps of the hair volume, about -1..1, fixed by the subject."""
    a, e = np.radians(azimuth), np.radians(elevation)
    g = np.random.default_rng(hair.texture)
    total = np.zeros_like(a)
    curls = ((13, 11), (19, 15), (23, 21)) if hair.style in ("curly", "afro") else ()
    for across, along in ((2, 2), (3, 4), (5, 5), (8, 7), *curls):
        phase = g.uniform(0, 2 * np.pi, 2)
        total += np.sin(across * a + phase[0]) * np.sin(along * e + phase[1]) * np.cos(e)
    return f32(total / 2)


def _thickness(hair: Hair, skull: SkullMap, inside: Floats) -> Floats:
    """Distance of the hair surface from the skin, (n,)."""
    a, e = np.radians(skull.azimuth), np.radians(skull.elevation)
    thick = _THICKNESS[hair.style] * hair.volume * np.ones_like(a)
    front = np.cos(a) * np.cos(e)
    side = np.sin(a) * np.cos(e)
    top = np.clip(np.sin(e), 0, 1)
    match hair.style:
        case "short":
            thick *= 0.55 + 0.6 * top + 0.25 * front * top
        case "receding":
            thick *= 0.6 + 0.4 * (1 - top)
        case "side-parted":
            sweep = np.clip(0.5 - 1.2 * (side - hair.part) * np.sign(hair.part), 0, 1)
            thick *= 0.4 + 0.75 * top * (0.5 + 0.7 * sweep) + 0.35 * np.clip(front, 0, 1) * sweep
        case "afro" | "curly":
            thick *= 0.55 + 0.45 * ramp(skull.elevation, -5, 45)
        case "slicked back":
            thick *= 0.45 + 0.7 * top
        case "bob" | "long" | "wavy":
            thick *= 0.75 + 0.35 * np.abs(side)
    roughness = {"curly": 0.22, "afro": 0.1, "wavy": 0.1, "short": 0.12}.get(hair.style, 0.06)
    thick = thick * (1 + roughness * _lumps(hair, skull.azimuth, skull.elevation))
    if hair.style in HANGING | {"side-parted"} and not hair.fringe:
        thick *= 1 - 0.55 * np.exp(-(((side - hair.part) / 0.09) ** 2)) * (top > 0.3)
    taper = ramp(inside, -2.0, _TAPER.get(hair.style, 11.0))
    floor = 0.25 if hair.fringe else 0.0
    return f32(thick * np.maximum(taper, floor * (inside > -8)))


def _strand_uv(hair: Hair, skull: SkullMap) -> Floats:
    """Texture coordinates (n, 2) of the cap: across and along the strands."""
    a, e = np.radians(skull.azimuth), np.radians(skull.elevation)
    x, y, z = np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)
    match hair.style:
        case "side-parted" | "bob" | "long" | "wavy":
            side = np.sign(x - hair.part)
            return f32(np.stack([0.5 * z + 0.1 * y + 0.31 * side, 0.5 * np.abs(x - hair.part)], 1))
        case "slicked back" | "bun" | "ponytail":
            return f32(np.stack([0.55 * np.arctan2(x, np.abs(y) + 0.5), 0.4 * z], 1))
        case _:
            return f32(np.stack([0.5 * x + 0.2 * z * np.sign(hair.part), 0.4 * z - 0.3 * y], 1))


def _grid_triangles(rows: int, columns: int) -> Ints:
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    pairs = [np.stack([a, c, b], -1), np.stack([b, c, d], -1)]
    return np.concatenate([p.reshape(-1, 3) for p in pairs])


def _cap(skull: SkullMap, hair: Hair, base: Floats, level: float) -> HairMesh:
    inside = inside_hairline(hair, skull.azimuth, skull.elevation)
    lift = level * _thickness(hair, skull, inside) + 0.012 * level
    positions = f32(base + _outward(base) * lift[:, None])
    grid = positions.reshape(ROWS, COLUMNS, 3)
    along = f32(np.gradient(grid, axis=0)).reshape(-1, 3)
    across = f32(np.gradient(grid, axis=1)).reshape(-1, 3)
    sideways = hair.style == "side-parted"
    tangents = unit(along + (2.0 * across if sideways else 0.0))
    border = 3.0 if level < 0.8 else 5.0
    edge = inside / border
    triangles = _grid_triangles(ROWS, COLUMNS)
    triangles = triangles[(edge[triangles] > -2.0).any(1)]
    crown = ramp(np.cos(np.radians(skull.elevation)), 0.0, 0.3)
    return HairMesh(positions, triangles, _strand_uv(hair, skull), f32(edge), tangents, crown)


def _curtain(skull: SkullMap, hair: Hair, base: Floats, level: float, ear_reach: float) -> HairMesh:
    """Hair that falls from the temples and the back of the head."""
    start = int(np.abs(skull.elevation.reshape(ROWS, COLUMNS)[:, 0] - 24).argmin())
    row = slice(start * COLUMNS, (start + 1) * COLUMNS)
    azimuth = skull.azimuth[row]
    cap = _cap(skull, hair, base, level)
    top = cap.positions[row]
    chin = 1.5 if hair.style == "bob" else 2.15
    length = chin + hair.length * (0.4 if hair.style == "bob" else 0.8)
    t = np.linspace(0, 1, FALL_ROWS)[:, None]
    fall = t * length
    a = np.radians(azimuth)
    sides = np.abs(np.sin(a))
    flare = 0.10 * hair.volume * ramp(fall, 0.0, 0.6)
    curl_in = (0.22 if hair.style == "bob" else 0.08) * ramp(t, 0.7, 1.05)
    covering = 1.0 if hair.opening < 66 else 0.0
    gap = np.clip(ear_reach + 0.03 + 0.04 * level - np.abs(top[:, 0]), 0, 0.5)
    ears = covering * gap * np.exp(-(((np.abs(azimuth) - 86) / 30) ** 4))
    ears = ears[None, :] * ramp(fall, 0.0, 0.42)
    waves = 0.055 * hair.wave * np.sin(fall * 7.5 + 3 * np.sin(2 * a)[None, :])
    bulge = (
        np.maximum(flare * (0.4 + sides), ears)
        - curl_in
        + (waves * ramp(t, 0.1, 0.4) if hair.style == "wavy" else 0)
    )
    forward = 0.16 * ramp(np.cos(a), 0.0, 0.6)[None, :] * ramp(fall, 0.9, 1.8)
    backward = 0.10 * ramp(-np.cos(a), -0.2, 0.4)[None, :] * fall
    x = top[None, :, 0] + bulge * np.sin(a)
    y = top[None, :, 1] - fall
    z = top[None, :, 2] + bulge * np.cos(a) * 0.6 + forward - backward
    positions = f32(np.stack([x, np.broadcast_to(y, x.shape), z], -1))
    uv_top = cap.uv[row]
    u = np.broadcast_to(uv_top[None, :, 0], x.shape)
    v = uv_top[None, :, 1] + 0.35 * fall
    opened = (np.abs(azimuth) - hair.opening)[None, :] / 5.0 + 0.0 * t
    g = np.random.default_rng(hair.texture + 1)
    ragged = 0.12 * np.interp(azimuth, np.linspace(-180, 180, 60), g.normal(0, 1, 60))
    tip = (length - 0.15 + ragged[None, :] - fall) / 0.1
    edge = f32(np.minimum(opened, tip))
    triangles = _grid_triangles(FALL_ROWS, COLUMNS)
    flat = edge.reshape(-1)
    triangles = triangles[(flat[triangles] > -2.0).any(1)]
    tangents = unit(np.gradient(positions, axis=0))
    uv = f32(np.stack([u, v], -1)).reshape(-1, 2)
    solid = np.ones(x.size, np.float32)
    return HairMesh(positions.reshape(-1, 3), triangles, uv, flat, tangents.reshape(-1, 3), solid)


def _ball(centre: Floats, radii: Floats, rows: int = 14, columns: int = 28) -> HairMesh:
    a, e = np.meshgrid(np.linspace(0, 2 * np.pi, columns), np.linspace(np.pi / 2, -np.pi / 2, rows))
    d = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], -1).reshape(-1, 3)
    uv = np.stack([0.3 * d[:, 1] + 0.2 * d[:, 0] * d[:, 1], 0.15 * a.reshape(-1)], 1)
    tangents = np.stack([np.cos(a), 0 * a, -np.sin(a)], -1).reshape(-1, 3)
    ones = np.ones(len(d), np.float32)
    return HairMesh(
        f32(centre + d * radii),
        _grid_triangles(rows, columns),
        f32(uv),
        4 * ones,
        f32(tangents),
        ones,
    )


def _knot(base: Floats, offset: Floats, radii: Floats) -> HairMesh:
    crown = base.reshape(ROWS, COLUMNS, 3)[0].mean(0)
    return _ball(f32(crown + offset), radii)


def _tail(base: Floats, hair: Hair, level: float) -> HairMesh:
    """A ponytail: a bent tube from the back of the head over one shoulder."""
    grid = base.reshape(ROWS, COLUMNS, 3)
    root = grid[ROWS // 4, 0] + f32([0, 0.1, -0.15])
    t = np.linspace(0, 1, 20)
    side = np.sign(hair.part) * (0.35 + 0.35 * hair.length)
    path = np.stack(
        [
            root[0] + side * ramp(t, 0.0, 0.6),
            root[1] + 0.15 * np.sin(np.pi * np.minimum(3 * t, 1)) - 2.2 * t**1.3,
            root[2] - 0.22 * np.sin(np.pi * t),
        ],
        1,
    )
    radius = level * hair.volume * (0.06 + 0.10 * np.sin(np.pi * np.minimum(t * 1.02, 1)) ** 0.7)
    return tube(f32(path), f32(radius), 14)


def tube(path: Floats, radius: Floats, sides: int) -> HairMesh:
    """A tube of `sides` faces along `path` (n, 3) with `radius` (n,)."""
    tangent = unit(np.gradient(path, axis=0))
    first = unit(np.cross(tangent, f32([0.03, 0.02, 1.0])))
    second = np.cross(tangent, first)
    a = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(a)[None, :, None] * first[:, None] + np.sin(a)[None, :, None] * second[:, None]
    positions = f32(path[:, None] + ring * radius[:, None, None])
    u = np.broadcast_to(0.06 * a[None, :], positions.shape[:2])
    v = np.broadcast_to(np.linspace(0, 0.8, len(path))[:, None], positions.shape[:2])
    ones = np.ones(u.size, np.float32)
    return HairMesh(
        positions.reshape(-1, 3),
        _grid_triangles(len(path), sides + 1),
        f32(np.stack([u, v], -1)).reshape(-1, 2),
        4 * ones,
        f32(np.repeat(tangent, sides + 1, 0)),
        ones,
    )


def _join(parts: list[HairMesh]) -> HairMesh:
    starts = np.cumsum([0] + [len(p.positions) for p in parts[:-1]])
    return HairMesh(
        np.concatenate([p.positions for p in parts]),
        np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=True)]),
        np.concatenate([p.uv for p in parts]),
        np.concatenate([p.edge for p in parts]),
        np.concatenate([p.tangents for p in parts]),
        np.concatenate([p.crown for p in parts]),
    )
