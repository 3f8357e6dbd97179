"""Named colours (sRGB, 0..1): the closed vocabulary of captions and attributes."""

RGB = tuple[float, float, float]

CLOTH_COLORS: dict[str, RGB] = {
    "black": (0.09, 0.09, 0.10),
    "white": (0.92, 0.92, 0.90),
    "grey": (0.50, 0.50, 0.52),
    "red": (0.74, 0.12, 0.14),
    "orange": (0.90, 0.46, 0.12),
    "yellow": (0.93, 0.78, 0.22),
    "green": (0.16, 0.50, 0.26),
    "teal": (0.08, 0.50, 0.52),
    "blue": (0.16, 0.36, 0.76),
    "navy": (0.10, 0.14, 0.32),
    "purple": (0.44, 0.20, 0.58),
    "pink": (0.92, 0.52, 0.64),
    "brown": (0.40, 0.26, 0.17),
    "beige": (0.82, 0.74, 0.60),
}
FORMAL_COLORS = ("black", "grey", "navy", "blue", "brown", "beige", "white", "green", "red")

BACKGROUND_COLORS: dict[str, RGB] = {
    "black": (0.10, 0.10, 0.12),
    "white": (0.90, 0.90, 0.89),
    "grey": (0.55, 0.56, 0.58),
    "red": (0.66, 0.18, 0.18),
    "orange": (0.88, 0.54, 0.24),
    "yellow": (0.91, 0.80, 0.38),
    "green": (0.30, 0.54, 0.32),
    "teal": (0.22, 0.56, 0.57),
    "blue": (0.32, 0.50, 0.76),
    "purple": (0.46, 0.32, 0.60),
    "pink": (0.90, 0.66, 0.72),
    "brown": (0.42, 0.30, 0.22),
    "beige": (0.83, 0.77, 0.66),
}

HAIR_COLORS: dict[str, RGB] = {
    "black": (0.075, 0.065, 0.065),
    "dark brown": (0.17, 0.105, 0.07),
    "brown": (0.31, 0.19, 0.11),
    "light brown": (0.47, 0.32, 0.19),
    "blond": (0.72, 0.58, 0.39),
    "red": (0.53, 0.22, 0.10),
    "grey": (0.52, 0.51, 0.50),
    "white": (0.83, 0.82, 0.80),
}

IRIS_COLORS: dict[str, RGB] = {
    "dark brown": (0.13, 0.075, 0.045),
    "brown": (0.29, 0.17, 0.09),
    "hazel": (0.38, 0.30, 0.14),
    "green": (0.28, 0.44, 0.28),
    "blue": (0.28, 0.46, 0.68),
    "grey": (0.44, 0.50, 0.54),
}

FRAME_COLORS: dict[str, RGB] = {
    "black": (0.05, 0.05, 0.06),
    "brown": (0.26, 0.14, 0.07),
    "gold": (0.70, 0.54, 0.26),
    "silver": (0.62, 0.63, 0.66),
    "red": (0.52, 0.08, 0.10),
    "blue": (0.12, 0.20, 0.46),
}

SKIN_STOPS: tuple[RGB, ...] = (
    (0.95, 0.79, 0.71),
    (0.90, 0.71, 0.60),
    (0.80, 0.60, 0.47),
    (0.66, 0.46, 0.34),
    (0.49, 0.325, 0.235),
    (0.33, 0.21, 0.155),
)
SKIN_NAMES = ("light", "medium", "tan", "brown", "dark")
