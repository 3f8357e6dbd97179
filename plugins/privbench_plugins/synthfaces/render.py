"""From an identity and a scene to pixels, depth and landmarks."""

from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Bytes, Floats, f32, ramp, rotation, unit
from .assets import EYE, LASH, SKIN, TEETH, TONGUE, Head, load_head
from .background import paint_background
from .clothes import Garment, cut_garment, paint_clothes, stand_off
from .gbuffer import GBuffer, Layer
from .glasses import Spectacles, build_spectacles
from .hair import HairMesh, SkullMap, build_hair, map_skull
from .identity import Identity
from .light import shade, to_display, to_linear
from .raster import rasterise, vertex_normals
from .scalp import HANGING
from .scene import Scene
from .skin import Surface, beard_mask, mask_values, paint
from .texture import Noise, load_noise, look_up

SUPERSAMPLING = 2
_NEAR, _FAR = 1.6, -1.8
_BEARD_LENGTH = {"full beard": 0.13, "short beard": 0.045, "goatee": 0.06, "moustache": 0.03}


@dataclass(frozen=True)
class Studio:
    """Everything that all renders share."""

    head: Head
    skull: SkullMap
    garment: Garment
    noise: Noise


@dataclass(frozen=True)
class Subject:
    """The geometry of one identity: mesh (V, 3), hair and glasses, in the rest pose."""

    identity: Identity
    positions: Floats
    hair: list[HairMesh]
    spectacles: Spectacles | None


@dataclass(frozen=True)
class Rendered:
    """pixels: (H, W, 3). depth: (H, W), nearer is larger, 0 is background.

    landmarks: (5, 2) pixel x, y of the eyes (viewer's left first), nose tip, mouth corners.
    """

    pixels: Bytes
    depth: Bytes
    landmarks: Floats


@dataclass(frozen=True)
class _View:
    """Moves points of the rest pose to the screen of `size` pixels."""

    turn: Floats
    torso: Floats
    pivot: Floats
    target: Floats
    focal: float
    distance: float
    shift: tuple[float, float]
    size: int

    def pose(self, points: Floats) -> Floats:
        """Turn the head on the neck (n, 3)."""
        weight = ramp(points[:, 1], 5.45, 6.15)[:, None]
        local = points - self.pivot
        return f32(
            self.pivot + (local @ self.turn.T) * weight + (local @ self.torso.T) * (1 - weight)
        )

    def project(self, posed: Floats) -> Floats:
        """Pixel x, y and depth in units towards the viewer (n, 3)."""
        local = posed - self.target
        scale = self.focal / (self.distance - local[:, 2])
        x = (local[:, 0] * scale + self.shift[0] + 1) * self.size / 2 - 0.5
        y = (-local[:, 1] * scale + self.shift[1] + 1) * self.size / 2 - 0.5
        return f32(np.stack([x, y, local[:, 2]], 1))


def open_studio() -> Studio:
    """Load the head and all that follows from it (a few seconds)."""
    head = load_head()
    return Studio(head, map_skull(head), cut_garment(head), load_noise())


def build_subject(studio: Studio, identity: Identity) -> Subject:
    """Shape the head of an identity."""
    head = studio.head
    weights = {**_macro_weights(identity), **dict(identity.shape)}
    positions = f32(head.rest + head.displace(weights))
    _seat_mouth(head, positions)
    ear = np.nonzero(head.is_ear)[0]
    reach = float(np.quantile(np.abs(positions[ear, 0]), 0.97))
    hair = build_hair(studio.skull, identity.hair, positions, reach)
    spectacles = None
    if identity.glasses:
        eyes = f32([positions[head.eye_vertices(side)].mean(0) for side in (-1, 1)])
        ears = f32([_ear_root(positions[ear[np.sign(head.rest[ear, 0]) == s]]) for s in (-1, 1)])
        face = np.unique(head.triangles[head.material == SKIN])
        spectacles = build_spectacles(identity.glasses, positions, eyes, ears, face)
    return Subject(identity, positions, hair, spectacles)


def _ear_root(points: Floats) -> Floats:
    """Where the temple of a frame meets the ear."""
    return f32([np.abs(points[:, 0]).mean(), np.quantile(points[:, 1], 0.75), points[:, 2].mean()])


def _macro_weights(identity: Identity) -> dict[str, float]:
    """Weights of the MakeHuman macro targets: ancestry, sex, age, muscle and weight."""
    old = float(0.85 * np.clip((identity.age - 24) / 54, 0, 1) ** 1.2)
    sexes = {"male": identity.masculinity, "female": 1 - identity.masculinity}
    ages = {"young": 1 - old, "old": old}
    weights: dict[str, float] = {}
    for sex, s in sexes.items():
        for age, a in ages.items():
            for race, r in zip(("african", "asian", "caucasian"), identity.ancestry, strict=True):
                weights[f"macro/{race}-{sex}-{age}"] = r * s * a
            for muscle, m in _thirds("muscle", identity.muscle).items():
                for weight, w in _thirds("weight", identity.weight).items():
                    weights[f"macro/universal-{sex}-{age}-{muscle}-{weight}"] = s * a * m * w
    return weights


def _thirds(name: str, value: float) -> dict[str, float]:
    return {
        f"min{name}": max(0.0, 1 - 2 * value),
        f"average{name}": 1 - abs(2 * value - 1),
        f"max{name}": max(0.0, 2 * value - 1),
    }


def _seat_mouth(head: Head, positions: Floats) -> None:
    """Draw teeth and tongue back so that they do not pierce the lips (in place)."""
    inner = np.unique(head.triangles[(head.material == TEETH) | (head.material == TONGUE)])
    positions[inner, 2] -= 0.03
    middle = positions[inner].mean(0)
    positions[inner, 0] = middle[0] + 0.9 * (positions[inner, 0] - middle[0])


def _expression_weights(scene: Scene) -> dict[str, float]:
    """Weights of the face-unit targets."""
    a = scene.strength
    units: dict[str, float] = {f"eye{k}": v for k, v in _lids(scene).items()}
    match scene.expression:
        case "smiling":
            pairs = {"mouthSmile": 0.75 * a, "cheekSquint": 0.5 * a, "eyeSquint": 0.2 * a}
        case "laughing":
            pairs = {"mouthSmile": 0.9 * a, "cheekSquint": 0.9 * a, "mouthUpperUp": 0.25 * a}
            units["jawOpen"] = 0.34 * a
        case "talking":
            pairs = {"mouthStretch": 0.1 * a}
            units |= {"jawOpen": 0.28 * a, "mouthFunnel": 0.3 * a}
        case "surprised":
            pairs = {"browOuterUp": a, "eyeWide": a}
            units |= {"browInnerUp": a, "jawOpen": 0.35 * a}
        case "frowning":
            pairs = {"browDown": a, "mouthFrown": 0.8 * a}
        case _:
            pairs = {}
    for name, value in pairs.items():
        units[f"{name}Left"] = units[f"{name}Right"] = value + units.get(f"{name}Left", 0.0)
    return {f"face/{name}": value for name, value in units.items()}


def _lids(scene: Scene) -> dict[str, float]:
    return {
        "BlinkLeft": scene.blink,
        "BlinkRight": scene.blink,
        "WideLeft": 0.32,
        "WideRight": 0.32,
    }


def _look(scene: Scene, positions: Floats, rest: Floats, size: int) -> _View:
    camera = scene.camera
    neck = np.abs(rest[:, 1] - 5.9) < 0.12
    pivot = positions[neck].mean(0)
    turn = rotation(camera.yaw, -camera.pitch, camera.roll)
    torso = rotation(camera.torso_yaw, 0, 0)
    skull = (rest[:, 1] > 6.2) & (rest[:, 1] < 8.3) & (rest[:, 2] > 0.2)
    middle = positions[skull].mean(0)
    target = (f32([0, middle[1], middle[2] * 0.4 + pivot[2] * 0.6]) - pivot) @ turn.T + pivot
    target = f32(np.add(target, (0, 0.035 * camera.height, 0)))
    focal = float(1 / np.tan(np.radians(camera.field_of_view / 2)))
    distance = camera.height * focal / 2
    return _View(turn, torso, pivot, target, focal, distance, camera.shift, size)


def render(studio: Studio, subject: Subject, scene: Scene, size: int = 128) -> Rendered:
    """Render one image of `size` x `size` pixels."""
    head, identity = studio.head, subject.identity
    positions = subject.positions + head.displace(_expression_weights(scene))
    view = _look(scene, subject.positions, head.rest, size * SUPERSAMPLING)
    buffer = GBuffer(view.size)
    skin = head.triangles[head.material == SKIN]
    normals = vertex_normals(positions, skin)
    beard = _BEARD_LENGTH.get(identity.beard, 0.0) * identity.beard_density
    if beard:
        positions = positions + normals * (beard * beard_mask(identity.beard, head.rest))[:, None]
    posed = view.pose(positions)
    screen = view.project(posed)
    _lay_head(studio, identity, scene, buffer, posed, screen)
    _lay_lashes(head, buffer, screen)
    _lay_clothes(studio, scene, buffer, view, positions, normals)
    for level, mesh in enumerate(subject.hair):
        _lay_hair(studio, identity, buffer, view, mesh, outer=level == 1)
    if subject.spectacles and scene.glasses_on:
        _lay_spectacles(buffer, view, subject.spectacles)
    return _develop(buffer, scene, size, _landmarks(head, screen))


def _lay_head(
    studio: Studio, identity: Identity, scene: Scene, buffer: GBuffer, posed: Floats, screen: Floats
) -> None:
    head = studio.head
    hidden = {LASH}
    if scene.expression in ("neutral", "smiling", "frowning"):
        hidden |= {TEETH, TONGUE}
    shown = ~np.isin(head.material, list(hidden))
    triangles, material = head.triangles[shown], head.material[shown]
    found = rasterise(screen, triangles, buffer.size, cull=True)
    normals = vertex_normals(posed, triangles)
    values = found.interpolate(np.concatenate([head.rest, normals], 1), triangles)
    lips, mouth = mask_values(head, found.interpolate_corners(head.uv[shown]))
    what = material[found.triangle]
    surface = Surface(values[:, :3], what, lips, mouth)
    albedo = paint(identity, surface, studio.noise, scene.gaze)
    gloss = np.where(what == SKIN, 0.075 + 0.10 * lips, np.where(what == EYE, 0.25, 0.1))
    if identity.hair.style == "bald":
        gloss = gloss + 0.05 * (surface.rest[:, 1] > 7.9)
    solid = np.ones(len(what), np.float32)
    buffer.lay(Layer(found.pixel, found.depth, solid, albedo, values[:, 3:], f32(gloss)))


def _lay_lashes(head: Head, buffer: GBuffer, screen: Floats) -> None:
    triangles = head.triangles[head.material == LASH]
    found = rasterise(screen, triangles, buffer.size, cull=False)
    n = len(found.pixel)
    rest = found.interpolate(head.rest, triangles)
    alpha = np.where(rest[:, 1] > 7.28, 0.6, 0.15) * ramp(-rest[:, 2], -1.47, -1.38)
    normal = np.tile(f32([0, 0, 1]), (n, 1))
    dark = np.full((n, 3), 0.05, np.float32)
    depth = found.depth + 0.01
    buffer.lay(Layer(found.pixel, depth, f32(alpha), dark, normal, np.zeros(n, np.float32)))


def _lay_clothes(
    studio: Studio,
    scene: Scene,
    buffer: GBuffer,
    view: _View,
    positions: Floats,
    normals: Floats,
) -> None:
    rest, triangles = studio.head.rest, studio.garment.triangles
    cloth = positions + normals * stand_off(scene.clothing.kind, rest)[:, None]
    posed = view.pose(cloth)
    found = rasterise(view.project(posed), triangles, buffer.size, cull=True)
    values = found.interpolate(
        np.concatenate([rest, vertex_normals(posed, triangles)], 1), triangles
    )
    alpha, albedo = paint_clothes(scene.clothing, values[:, :3], studio.noise)
    gloss = np.full(len(alpha), 0.015, np.float32)
    buffer.lay(Layer(found.pixel, found.depth, alpha, albedo, values[:, 3:], gloss))


def _facing(normal: Floats) -> Floats:
    """Turn normals (n, 3) to the viewer."""
    return f32(np.where(normal[:, 2:] < 0, -normal, normal))


def _lay_hair(
    studio: Studio, identity: Identity, buffer: GBuffer, view: _View, mesh: HairMesh, outer: bool
) -> None:
    hair, noise = identity.hair, studio.noise
    posed = view.pose(mesh.positions)
    visible = mesh.edge + 0.4
    closed = hair.style not in HANGING and hair.style != "ponytail"
    found = rasterise(view.project(posed), mesh.triangles, buffer.size, cull=closed, clip=visible)
    normals = vertex_normals(posed, mesh.triangles)
    columns = [
        mesh.uv,
        mesh.edge[:, None],
        mesh.crown[:, None],
        mesh.tangents @ view.turn.T,
        normals,
    ]
    values = found.interpolate(f32(np.concatenate(columns, 1)), mesh.triangles)
    uv, edge, crown = values[:, :2], values[:, 2], values[:, 3]
    tangent, normal = unit(values[:, 4:7]), _facing(values[:, 7:])
    curls = hair.style in ("curly", "afro")
    if curls:
        texture = _curls(noise, uv, hair.texture, hair.style == "afro")
    else:
        texture = look_up(noise.strands, uv[:, 0], 0.5 * uv[:, 1], hair.texture) * (
            0.3 + 0.7 * crown
        )
    rim = 1 - np.clip(unit(normal)[:, 2], 0, 1)
    alpha = ramp(edge + (0.15 if curls else 0.28) * texture, -0.2, 0.7)
    if outer:
        alpha = alpha * ramp(texture + 2.4 - 1.7 * ramp(rim, 0.6, 1.0), 0.0, 0.9)
    color = f32(hair.rgb) * np.clip(1 + (0.24 - 0.12 * max(hair.rgb)) * texture, 0.45, 1.6)[:, None]
    color = color * (1 - 0.35 * (1 - ramp(edge, 0.0, 3.0)) * (not outer))[:, None]
    strand = np.full(len(alpha), 0.35 if curls else 1.0, np.float32)
    gloss = f32(np.clip(0.20 + 0.05 * texture, 0.02, 0.4) * (0.5 if hair.style == "afro" else 1.0))
    normal = unit(
        normal + (0.45 if curls else 0.18) * texture[:, None] * unit(np.cross(tangent, normal))
    )
    buffer.lay(
        Layer(found.pixel, found.depth, f32(alpha), f32(color), normal, gloss, strand, tangent)
    )


def _curls(noise: Noise, uv: Floats, seed: int, tight: bool) -> Floats:
    """Blobs instead of strands."""
    scale = 1.6 if tight else 1.0
    fine = look_up(noise.middle, scale * uv[:, 0], scale * uv[:, 1], seed)
    wide = look_up(noise.middle, 0.4 * scale * uv[:, 0], 0.4 * scale * uv[:, 1], seed + 7)
    return f32(0.7 * fine + 0.35 * wide)


def _lay_spectacles(buffer: GBuffer, view: _View, spectacles: Spectacles) -> None:
    lens = view.project(view.pose(spectacles.lens))
    glass = rasterise(lens, spectacles.lens_triangles, buffer.size, cull=False)
    n = len(glass.pixel)
    x, y = glass.pixel % buffer.size, glass.pixel // buffer.size
    sheen = ramp(np.sin((x + 1.4 * y) * 9.0 / buffer.size), 0.55, 0.95)
    white = np.tile(f32([0.95, 0.97, 1.0]), (n, 1))
    forward = np.tile(view.turn @ f32([0, 0, 1]), (n, 1))
    alpha = f32(0.03 + 0.10 * sheen)
    depth_before = buffer.depth.copy()
    buffer.lay(Layer(glass.pixel, glass.depth, alpha, white, forward, np.full(n, 0.3, np.float32)))
    buffer.depth = depth_before
    posed = view.pose(spectacles.frame)
    found = rasterise(view.project(posed), spectacles.frame_triangles, buffer.size, cull=False)
    normals = vertex_normals(posed, spectacles.frame_triangles)
    normal = _facing(found.interpolate(normals, spectacles.frame_triangles))
    n = len(found.pixel)
    color = np.tile(f32(spectacles.rgb), (n, 1))
    solid, gloss = np.ones(n, np.float32), np.full(n, 0.3, np.float32)
    buffer.lay(Layer(found.pixel, found.depth, solid, color, normal, gloss))


def _landmarks(head: Head, screen: Floats) -> Floats:
    """Five points (5, 2) in pixels of the final image."""
    eyes = [screen[head.eye_vertices(side), :2].mean(0) for side in (-1, 1)]
    points = np.concatenate([eyes, screen[head.landmark_vertices, :2]])
    return f32((points + 0.5) / SUPERSAMPLING - 0.5)


def _develop(buffer: GBuffer, scene: Scene, size: int, landmarks: Floats) -> Rendered:
    """Light, background, camera."""
    back = to_linear(paint_background(scene.background, buffer.size)).reshape(-1, 3)
    back = back * (0.75 + 0.25 * scene.light.exposure)
    cover = buffer.cover[:, None]
    full = shade(buffer, scene.light) * cover + back * (1 - cover)
    image = full.reshape(buffer.size, buffer.size, 3)
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    shown = to_display(f32(small))
    if scene.camera.blur > 0.2:
        shown = f32(cv2.GaussianBlur(shown, (0, 0), scene.camera.blur * size / 128))
    pixels = np.round(shown * 255).astype(np.uint8)
    return Rendered(pixels, _depth_image(buffer, size), landmarks)


def _depth_image(buffer: GBuffer, size: int) -> Bytes:
    """Depth on a fixed scale: 1 at _FAR and below, 255 at _NEAR, 0 where nothing is."""
    near = (buffer.depth - _FAR) / (_NEAR - _FAR)
    value = np.where(buffer.depth > -100, 1 + 254 * np.clip(near, 0, 1), 0)
    step = SUPERSAMPLING
    grid = value.reshape(buffer.size, buffer.size)[::step, ::step]
    return np.asarray(np.round(grid[:size, :size]), np.uint8)
