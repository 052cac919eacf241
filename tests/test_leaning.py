"""Which depths a head leans on: the figures, and the words and the plot made of them."""

import json

import numpy as np
import pytest

from run_folder import write_run
from topgraft._report import report
from topgraft.backbones.depths import Depth, Depths
from topgraft.heads._ridge import Ridge
from topgraft.selection.leaning import lean_in_words, leaning, thirds


def test_a_head_leans_on_the_columns_that_move_its_answers():
    columns = Depths(2, (Depth(name="early", channels=1), Depth(name="late", channels=1)))
    rows = np.random.default_rng(0).standard_normal((400, columns.width)).astype(np.float32)
    weight = np.zeros((columns.width, 2))
    weight[0, 1], weight[columns.columns("late", "spreads"), 1] = 1, 2  # 1 and 4 of the variance
    head = Ridge().keep(weight, np.zeros(2), multilabel=False)
    found = leaning(head, rows, columns)
    assert [one["block"] for one in found] == ["", "early", "late"]
    assert [one["share"] for one in found] == pytest.approx([0.2, 0, 0.8], abs=0.03)
    assert found[2]["spreads"] == pytest.approx(found[2]["share"])
    assert found[2]["means"] == 0


@pytest.mark.parametrize("blocks", [3, 4, 5, 13, 16, 33])
def test_every_block_is_early_or_in_the_middle_or_late(blocks):
    parts = thirds([{}] * (1 + blocks))
    assert [at for part in parts for at in part] == list(range(1, 1 + blocks))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


SHARES = [0.4, *[0.01] * 5, *[0.02] * 6, *[0.086] * 5]


def test_the_report_and_the_console_say_the_same(tmp_path):
    run = write_run(tmp_path / "run", photos=40, with_photos=False)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["head"]["depths"] = [
        {"block": f"blocks.{i}" if i else "", "means": 0.0, "spreads": share, "share": share}
        for i, share in enumerate(SHARES)
    ]
    (run / "metrics.json").write_text(json.dumps(metrics))
    said = lean_in_words(metrics["head"]["depths"])
    assert "40% on the last layer, to 5% on early blocks" in said
    assert "to 12% on those in the middle and to 43% on late ones" in said
    page = report(run).read_text(encoding="utf-8")
    drawn = page[page.index("Which depths of the backbone it leans on") :]
    drawn = drawn[: drawn.index("<details>")]
    for name, share in (("Early", 5), ("Middle", 12), ("Late", 43), ("Last layer", 40)):
        assert f">{share}\u2009%" in drawn or f">{share} %" in drawn or f">{share}%" in drawn, name
    assert "--share:1.000" in drawn  # the longest bar is that of the largest part


def test_a_head_on_the_last_layer_alone_says_so_and_one_without_blocks_says_nothing():
    assert "last layer alone" in lean_in_words([{"share": 1.0}, {"share": 0.0}])
    assert lean_in_words([]) == ""
