"""Short English captions from the attributes, in a small closed vocabulary.

A caption never names the population, so it cannot give membership away.
"""

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
    template = _TEMPLATES[int(g.integers(len(_TEMPLATES)))]
    features = [_HAIR[identity.hair.style].format(color=identity.hair.color)]
    if identity.beard != "none":
        features.append(_article(identity.beard) if identity.beard != "stubble" else "stubble")
    if identity.glasses and scene.glasses_on:
        features.append("glasses")
    return template.format(
        opening=str(g.choice(_OPENINGS)),
        person=_article(f"{identity.age_group} {identity.sex}"),
        features=_enumerate(features),
        expression=_expression(scene.expression),
        clothes=_clothes(scene),
        place=_PLACES[scene.background.setting].format(color=scene.background.color),
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


def _clothes(scene: Scene) -> str:
    clothing = scene.clothing
    kind = {"v-neck": "v-neck sweater"}.get(clothing.kind, clothing.kind)
    striped = "striped " if clothing.striped else ""
    return _article(f"{clothing.color} {striped}{kind}")
