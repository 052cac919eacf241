"""The worth of policies, on features whose worth is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from embedding import a_backbone, embed_here
from photos import paint_folder
from topgraft.cli import app
from topgraft.errors import UsageError
from topgraft.heads._ridge import Ridge
from topgraft.metrics import losses
from topgraft.run.results import Side
from topgraft.selection.calibrate import cross_calibrate
from topgraft.selection.compare import compare, stack
from topgraft.selection.worth import STRENGTHS, levels_of, worth


class Source:
    """Views with a known effect: `hflip` shows what the photo hides, `vflip` shows the other class."""

    def __init__(self, photos=90, width=30, seed=0):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(photos) % 2
        mean = np.where(self.labels[:, None] > 0, 0.35, -0.35)
        policies = ["identity", "hflip", "hflip | rotate(60)", "rotate(60) | vflip", "vflip", "rotate(60)"]
        self.views = [SimpleNamespace(policy=policy) for policy in policies]
        plain = mean + rng.standard_normal((photos, width))
        self.rows = [plain]
        for policy in policies[1:]:
            fresh = mean + rng.standard_normal((photos, width))
            row = fresh if "hflip" in policy else -2 * mean + fresh if "vflip" in policy else plain
            self.rows.append(row + 0.1 * rng.standard_normal((photos, width)))

    def features(self, view=0):
        return self.rows[view].astype(np.float32)


@pytest.fixture(scope="module")
def judged():
    source = Source()
    return source, worth(source, source.labels)


def test_it_says_what_it_reads(judged):
    assert "by a ridge on the last layer" in judged[1].sentences[0]


def test_what_helps_helps_and_what_harms_harms(judged):
    _, found = judged
    levels = {level["level"]: level for level in found.numbers["levels"]}
    assert set(levels) == {"hflip", "rotate(60)", "vflip"}
    assert levels["hflip"]["views"] == 2
    for beside in ("to_view_0", "to_the_rest"):
        assert levels["hflip"][beside]["log_loss"]["high"] < 0
        assert levels["hflip"][beside]["accuracy"]["value"] > 0
        assert levels["vflip"][beside]["log_loss"]["low"] > 0
    same = next(row for row in found.numbers["policies"] if row["policy"] == "rotate(60)")
    assert same["to_view_0"]["log_loss"]["low"] < 0 < same["to_view_0"]["log_loss"]["high"]
    assert "horizontal flips (hflip): a gain on 90 photos" in "\n".join(found.sentences)
    assert "vertical flips (vflip): a harm on 90 photos" in "\n".join(found.sentences)
    levels = found.numbers["levels"]
    silent = [
        said
        for said in found.sentences
        if ": no measurable harm or gain on 90 photos" in said and not said.startswith("All ")
    ]
    assert set(found.brief[:-1]) == set(found.sentences[:-1]) - set(silent)
    assert found.brief[-1].startswith(f"Of the parts of the policies, {len(silent)} of {len(levels)} make")


def test_from_sums_is_from_rows(judged):
    source, found = judged
    from topgraft.splits import folds

    def direct(views, strength):
        rows = np.stack([source.features(view) for view in views])
        total = []
        for seed in range(3):
            dealt = folds(source.labels, None, 5, seed)
            logits = np.empty((90, 2))
            for (_, score), answer in zip(
                dealt,
                Ridge.sweep(rows, source.labels, dealt, [{"strength": strength}], classes=2),
                strict=True,
            ):
                logits[score] = answer[0]
            total.append(losses(source.labels, cross_calibrate(logits, source.labels, dealt)).mean())
        return np.mean(total)

    numbers = found.numbers
    strength = numbers["strength"]["all"]
    full = direct(range(6), strength)
    assert numbers["all"]["log_loss"]["value"] == pytest.approx(full, abs=1e-4)
    plain = min(direct([0], strength) for strength in STRENGTHS)
    assert numbers["view_0"]["log_loss"]["value"] == pytest.approx(plain, abs=1e-4)
    last = numbers["policies"][-1]
    assert last["to_the_rest"]["log_loss"]["value"] == pytest.approx(
        full - direct(range(5), strength), abs=1e-3
    )
    beside = min(direct([0, 5], strength) for strength in STRENGTHS) - plain
    assert last["to_view_0"]["log_loss"]["value"] == pytest.approx(beside, abs=1e-3)


def test_it_is_plain_data_and_the_same_every_time(judged):
    source, found = judged
    assert json.dumps(worth(source, source.labels).numbers, allow_nan=False) == json.dumps(found.numbers)


def test_on_noise_it_says_that_nothing_can_be_said():
    source = Source(photos=40)
    source.rows = [np.random.default_rng(i).standard_normal((40, 30)) for i in range(6)]
    said = worth(source, source.labels, repeats=2).sentences
    assert sum("no measurable harm or gain on 40 photos" in sentence for sentence in said) >= 3


def test_levels_are_the_terms_that_not_all_have():
    found = levels_of(
        ["identity", "hflip | rotate(60) | shear(1) | blur(0.1)", "blur(0.1) | hflip", "blur(0.1)"]
    )
    assert found == {"hflip": [1, 2], "rotate(60) | shear(1)": [1]}


def test_only_some_photos_can_be_asked_about():
    source = Source()
    photos = np.arange(60)
    part = worth(source, source.labels[:60], photos=photos, repeats=1)
    assert part.numbers["photos"] == 60


def test_without_policies_there_is_nothing_to_measure():
    source = Source()
    source.views = source.views[:1]
    with pytest.raises(UsageError, match="Embed with --policies 16"):
        worth(source, source.labels)
    with pytest.raises(UsageError, match="one label per photo"):
        worth(Source(), np.eye(2, dtype=int)[source.labels])


def test_heads_and_worth_leave_the_photos_out_that_the_run_held_out(tmp_path, caplog):
    features = embed_here(
        paint_folder(tmp_path / "photos", cat=8, dog=8),
        tmp_path / "run" / "features.zarr",
        a_backbone(tmp_path / "backbone"),
    )
    held = [f"x,{sample.digest},test" for sample in features.samples[::4]]
    (tmp_path / "run" / "predictions.csv").write_text("\n".join(["id,digest,split", *held]))
    losses = []
    caplog.set_level("INFO", "topgraft")
    for more, photos in (([], 12), (["--with-test"], 16)):
        caplog.clear()
        line = ["worth", features.path, "--folds", "2", "--repeats", "1", "--json", *more]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert json.loads(done.stdout)["photos"] == photos
        line = ["heads", features.path, "--heads", "mean", "--folds", "2", "--repeats", "1", "--json", *more]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert ("4 held-out photos left out; --with-test takes them in." in caplog.text) == (not more)
        losses.append(json.loads(done.stdout)["leaderboard"][0]["log_loss"]["value"])
    side = Side.of(features, [id_ for i, id_ in enumerate(features.ids) if i % 4])
    alone = compare(stack(features, side.rows), side.labels, side.groups, heads="mean", folds=2, classes=2)
    assert losses[0] == alone.rows[0]["log_loss"]["value"] != losses[1]
