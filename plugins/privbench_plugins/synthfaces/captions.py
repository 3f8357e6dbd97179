"""Short English captions from the attributes, in a small closed vocabulary.

A caption never names the population, so it cannot give membership away.
"""

from collections.abc import Mapping

from .identity import BEARDS, HAIR_STYLES, Identity
from .palette import BACKGROUND_COLORS, CLOTH_COLORS, HAIR_COLORS
from .scene import CLOTHES, EXPRESSIONS, Scene
from .seeds import stream

_OPENINGS = ("a photo of", "a portrait of", "a picture of")
_AGES = ("young", "middle-aged", "older")
_PLACES = {
    "plain": "{color} background",
    "gradient": "{color} background",
    "studio": "{color} background",
    "office": "{color} office in the background",
    "outdoors": "outdoors, {color} background",
    "bookshelf": "{color} bookshelf in the background",
    "lights": "lights on a {color} background",
}
_HAIR = {
    "bald": "a bald head",
    "shaved": "shaved {color} hair",
    "receding": "receding {color} hair",
    "short": "short {color} hair",
    "side-parted": "side-parted {color} hair",
    "slicked back": "slicked back {color} hair",
    "curly": "curly {color} hair",
    "afro": "a {color} afro",
    "bob": "a {color} bob",
    "long": "long {color} hair",
    "wavy": "wavy {color} hair",
    "bun": "{color} hair in a bun",
    "ponytail": "{color} hair in a ponytail",
}
_TEMPLATES = (
    "{opening} {person} with {features}, {expression}, in {clothes}, {place}",
    "{opening} {person} in {clothes} with {features}, {expression}, {place}",
    "{person} with {features}, {expression}, wearing {clothes}, {place}",
)


def caption(identity: Identity, scene: Scene) -> str:
    """Describe one image, e.g. "a photo of a young woman with long brown hair, smiling, ..."."""
    g = stream(f"{scene.name}:caption")
    template = int(g.integers(len(_TEMPLATES)))
    clothing = scene.clothing
    return describe(
        {
            "age_group": identity.age_group,
            "sex": identity.sex,
            "hair": identity.hair.style,
            "hair_color": identity.hair.color,
            "beard": identity.beard,
            "glasses": "yes" if identity.glasses and scene.glasses_on else "no",
            "expression": scene.expression,
            "clothing": clothing.kind,
            "clothing_color": clothing.color,
            "striped": "yes" if clothing.striped else "no",
            "setting": scene.background.setting,
            "background": scene.background.color,
        },
        template,
        int(g.integers(len(_OPENINGS))),
    )


def describe(words: Mapping[str, str], template: int = 0, opening: int = 0) -> str:
    """The caption that attributes make.

    Args:
        words: value of `age_group`, `sex`, `hair`, `hair_color`, `beard`, `glasses` (yes, no),
            `expression`, `clothing`, `clothing_color`, `striped` (yes, no), `setting` and
            `background`.
        template: which of the three sentences.
        opening: which of the three openings.
    """
    features = [_HAIR[words["hair"]].format(color=words["hair_color"])]
    beard = words["beard"]
    if beard != "none":
        features.append(_article(beard) if beard != "stubble" else "stubble")
    if words["glasses"] == "yes":
        features.append("glasses")
    return _TEMPLATES[template].format(
        opening=_OPENINGS[opening],
        person=_article(f"{words['age_group']} {words['sex']}"),
        features=_enumerate(features),
        expression=_expression(words["expression"]),
        clothes=_clothes(words),
        place=_PLACES[words["setting"]].format(color=words["background"]),
    )


def vocabulary() -> frozenset[str]:
    """Every word that a caption can contain."""
    phrases = [*_OPENINGS, *_AGES, *_PLACES.values(), *_HAIR.values(), *_TEMPLATES]
    phrases += [*HAIR_STYLES, *BEARDS, *HAIR_COLORS, *BACKGROUND_COLORS, *CLOTH_COLORS, *CLOTHES]
    phrases += [_expression(e) for e in EXPRESSIONS]
    phrases += ["striped", "an", "man", "woman", "glasses", "and"]
    words = " ".join(phrases).replace(",", " ").split()
    return frozenset(w for w in words if "{" not in w)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _enumerate(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _expression(name: str) -> str:
    return "neutral expression" if name == "neutral" else name


def _clothes(words: Mapping[str, str]) -> str:
    kind = {"v-neck": "v-neck sweater"}.get(words["clothing"], words["clothing"])
    striped = "striped " if words["striped"] == "yes" else ""
    return _article(f"{words['clothing_color']} {striped}{kind}")
