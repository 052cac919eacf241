"""Photos, a backbone and a process to kill, for the tests of embedding."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from topgraft import embed
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import Policy
from topgraft.settings import Settings
from topgraft.store import FeatureStore

CARD = Card(
    name="drawn.test",
    input_size=(32, 32),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    features=12,
    depths=(Depth(name="first", channels=3), Depth(name="second", channels=2, token=True)),
    float32=("blocks",),
    source="fake",
)
POLICIES = (Policy(rotation=20, fill="constant"), Policy(hflip=True), Policy(zoom=(0.7, 1.3)))


def a_backbone(folder: Path, name: str = CARD.name) -> Backbone:
    """A card for the fake engine; its graph is a file that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"")
    return Backbone(CARD.model_copy(update={"name": name}), folder / "model.onnx")


def embed_here(photos: str, store: str, backbone: Backbone, **options):
    """Embed a folder with the fake engine."""
    data = Dataset.from_folder(photos)
    given = {"policies": POLICIES, "engine": "fake", "settings": Settings.load(threads=2)} | options
    return embed(data, store, backbone=backbone, **given)


def _embed_and_tell(pipe, photos: str, store: str, backbone: Backbone) -> None:
    data = Dataset.from_folder(photos)
    pipe.send("ready")
    embed(data, store, backbone=backbone, policies=POLICIES, engine="fake", settings=Settings.load(threads=2))
    pipe.send("done")


def embed_and_be_killed(photos: str, store: str, backbone: Backbone, after_s: float) -> bool:
    """Embed in a process of its own and kill it with SIGKILL; tells whether it had ended by itself."""
    here, there = _context().Pipe(duplex=False)
    process = _context().Process(target=_embed_and_tell, args=(there, photos, store, backbone))
    process.start()
    there.close()
    assert here.recv() == "ready"
    here.poll(after_s)
    process.kill()  # it may have ended since
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


CHANGES = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}


def _die_at(event: int, action: str, photos: str, store: str, backbone: Backbone) -> None:
    """Kill this process right before its `event`th change below the store's folder."""
    left = event

    def watch(name: str, args: tuple) -> None:
        nonlocal left
        if name in CHANGES and str(args[0]).startswith(store) and not (name == "open" and args[1] == "r"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if action == "embed":
        embed_here(photos, store, backbone, policies=POLICIES[:1])
    else:
        FeatureStore.open(store).prune()


def die_at_change(event: int, action: str, photos: str, store: str, backbone: Backbone) -> bool:
    """Embed or prune in a process that kills itself at its nth change; tells whether it ended before that."""
    process = _context().Process(target=_die_at, args=(event, action, photos, store, backbone))
    process.start()
    process.join()
    ended = process.exitcode == 0
    assert ended or process.exitcode == -signal.SIGKILL
    return ended


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["embedding", "topgraft._embed", "topgraft.engines._fake", "zarr"])
    return context
