"""Backbones worth a first try, and what is known of them on this machine."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from topgraft.backbones import _builtin
from topgraft.backbones._cache import CARD, complete, note
from topgraft.backbones.card import Card
from topgraft.settings import Settings


@dataclass(frozen=True)
class Listed:
    """A backbone on offer, as timm's own configuration describes it.

    Attributes:
        name: what `--backbone` takes.
        parameters: without the classifier.
        features: D, the width of a feature row.
        side: of the pictures it takes, in pixels.
        licence: of the weights.
        note: what it is good for.
        here: whether it is on this machine and needs no network.
        pace: images a second measured on this machine, None where it never ran.
    """

    name: str
    parameters: int
    features: int
    side: int
    licence: str
    note: str = ""
    here: bool = False
    pace: float | None = None


RECOMMENDED = (
    Listed("tf_efficientnet_lite0.in1k", 3371008, 1280, 224, "apache-2.0", "tried first; comes with pip"),
    Listed("tf_efficientnet_lite1.in1k", 4135680, 1280, 240, "apache-2.0", "comes with the extra larger"),
    Listed("tf_efficientnet_lite2.in1k", 4811072, 1280, 260, "apache-2.0", "tried next; comes with pip"),
    Listed("mobilenetv1_100.ra4_e3600_r224_in1k", 3206976, 1024, 224, "apache-2.0", "small and quick"),
    Listed("mobilenetv2_100.ra_in1k", 2223872, 1280, 224, "apache-2.0", "smallest"),
    Listed("mobilenetv3_large_100.ra_in1k", 4202032, 1280, 224, "apache-2.0", "quickest"),
    Listed("efficientnet_b0.ra_in1k", 4007548, 1280, 224, "apache-2.0"),
    Listed("densenet121.ra_in1k", 6953856, 1024, 224, "apache-2.0"),
    Listed("inception_v3.tv_in1k", 21785568, 2048, 299, "apache-2.0"),
    Listed("legacy_xception.tf_in1k", 20806952, 2048, 299, "apache-2.0"),
    Listed("resnet50.a1_in1k", 23508032, 2048, 224, "apache-2.0"),
    Listed("convnext_tiny.fb_in22k", 27820128, 768, 224, "apache-2.0", "22,000 classes seen"),
    Listed(
        "vit_small_patch14_dinov2.lvd142m", 22056192, 384, 518, "apache-2.0", "self-supervised; --size 224"
    ),
    Listed("vit_base_patch16_clip_224.openai", 85799424, 768, 224, "apache-2.0", "photos and captions"),
    Listed("vgg16.tv_in1k", 134260544, 4096, 224, "bsd-3-clause", "large; for comparison with old work"),
)


def kept(cache: Path) -> list[Card]:
    """Return the cards of all backbones in the cache, by name; of one name those with depths first."""
    root = cache / "backbones"
    folders = [folder for folder in root.iterdir() if complete(folder)] if root.is_dir() else []
    cards = []
    for folder in folders:
        with suppress(ValidationError):  # a damaged card is made again when its backbone is asked for
            if folder.name[0] != ".":
                cards.append(Card.model_validate_json((folder / CARD).read_bytes()))
    return sorted(cards, key=lambda card: (card.name, card.precision, not card.depths, card.folder()))


def note_pace(cache: Path, card: Card, images_s: float) -> None:
    """Remember how fast a backbone ran on this machine, for the list of backbones; the last time counts."""
    path = cache / "backbones" / "pace" / f"{card.fingerprint()}.json"
    note(path, {"name": card.name, "images_s": round(images_s, 1)})


def pace(cache: Path, card: Card) -> float | None:
    """Return the images a second of a backbone's last run here."""
    try:
        text = (cache / "backbones" / "pace" / f"{card.fingerprint()}.json").read_bytes()
        return float(json.loads(text)["images_s"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None  # none, or a damaged one: the next run writes it anew


def list_backbones(settings: Settings | None = None) -> list[Listed]:
    """Return the recommended backbones and those that are kept on this machine besides."""
    settings = settings or Settings.load()
    cards: dict[str, Card] = {}
    for card in kept(settings.cache_dir):
        if card.precision == "f32":
            cards.setdefault(card.name, card)  # the one that `auto` tries
    for lite in _builtin.BUILTINS.values():
        if _builtin.here(lite):
            cards.setdefault(lite.name, _builtin.card(lite))
    known = {entry.name: entry for entry in RECOMMENDED}
    for name, card in cards.items():
        entry = known.get(name) or Listed(
            name,
            sum(block.parameters for block in card.blocks),
            card.features,
            card.input_size[0],
            card.licence,
        )
        known[name] = replace(entry, here=True, pace=pace(settings.cache_dir, card))
    return list(known.values())
