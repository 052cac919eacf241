"""Network heads: together as alone, as an ordinary torch module, and without torch once trained."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.heads import HEADS, head_class
from topgraft.heads._axes import prepare
from topgraft.heads._layers import Flatten
from topgraft.heads._network import MLP, T1, Deep, Flat, Light, LinearBN, Network
from topgraft.heads._parallel import Compute
from topgraft.splits import folds as make_folds

pytestmark = pytest.mark.timm
torch = pytest.importorskip("torch")
QUICK = [
    kind
    for kind in map(head_class, HEADS)
    if issubclass(kind, Network) and not kind.on_map and kind is not Deep
]


@pytest.fixture(autouse=True)
def one_core():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photos(count=90, views=3, width=120, classes=3, seed=0, strength=0.4):
    """Rows whose class moves their mean; views are noisy copies."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = strength * rng.standard_normal((classes, width))
    rows = means[labels] + rng.standard_normal((count, width))
    return (rows + 0.3 * rng.standard_normal((views, count, width))).astype(np.float32), labels


def job(head, fold=0, seed=0):
    from topgraft.heads._torch_feed import Job

    return Job(fold, head.shape, dropout=head.dropout, rate=head.rate, decay=head.decay, seed=seed)


def trained(features, labels, jobs, folds, plan=None, weight=None, multilabel=False):
    from topgraft.heads._torch import train
    from topgraft.heads._torch_feed import Plan, Task

    table = labels.astype(float) if multilabel else np.eye(labels.max() + 1)[labels]
    weight = np.ones(len(labels)) if weight is None else weight
    task = Task(table, weight, multilabel, plan or Plan(epochs=12, patience=4))
    return train(features, jobs, folds, task, compute=Compute())


@pytest.mark.parametrize("top", QUICK)
def test_together_is_as_alone(top):
    features, labels = photos()
    folds = [fit for fit, _ in make_folds(labels, None, 3)]
    heads = [top(rate=rate, decay=decay) for rate, decay in ((0.003, 0.1), (0.01, 1.0))]
    jobs = [job(head, fold, seed) for fold in range(3) for head in heads for seed in (0, 7)]
    together = trained(features, labels, jobs, folds)
    for single, found in zip(jobs, together, strict=True):
        (alone,) = trained(features, labels, [single], folds)
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours[0], theirs[0], atol=2e-4)
            np.testing.assert_allclose(ours[1], theirs[1], atol=2e-4)


def ordinary(features, labels, job, fold, plan):
    """The same network as a plain torch module, one model, one optimizer, the same draws."""
    from topgraft.heads._torch_feed import START, StackBatches, Task, draw
    from topgraft.heads._torch_stack import Stack

    given = prepare(features, labels, None, fold, seed=job.seed)
    task = Task(np.eye(labels.max() + 1)[labels], np.ones(len(labels)), plan=plan)
    feed = StackBatches(features, [job], [given], task, torch.device("cpu"))
    sizes = [given.projection.shape[1], *job.shape.widths, labels.max() + 1]
    drawn = [
        draw(job.seed, START + k).random((1, a + 1, b), np.float32)
        for k, (a, b) in enumerate(pairwise(sizes))
    ]
    first = Stack.start(job.shape, [features.shape[2], *job.shape.widths], drawn)

    dense = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    norms = [torch.nn.BatchNorm1d(units) for units in (job.shape.widths if job.shape.norm else ())]
    for layer, weight, bias in zip(dense, first.weights, first.biases, strict=True):
        layer.weight.data, layer.bias.data = weight[0].T.clone(), bias[0, 0].clone()

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.norms = torch.nn.ModuleList(dense), torch.nn.ModuleList(norms)

        def forward(self, x, drops=()):
            for k, layer in enumerate(self.dense[:-1]):
                x = torch.relu(layer(x))
                x = self.norms[k](x) if self.norms else x
                x = x * drops[k] if drops else x
            return self.dense[-1](x)

    module = Module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=job.rate, weight_decay=job.decay)
    factors = plan.rates(plan.epochs * feed.steps)
    rows, stop_labels, _ = feed.held()
    best, kept, step, since = np.inf, None, 0, 0
    for epoch in range(plan.epochs):
        module.train()
        for batch in feed.epoch(epoch):
            real = batch.share[0, :, 0] > 0
            optimizer.param_groups[0]["lr"] = job.rate * factors[step]
            step += 1
            logits = module(batch.rows[0, real], [drop[0, real] for drop in batch.drops])
            loss = torch.nn.functional.cross_entropy(logits, batch.labels[0, real].argmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            now = torch.nn.functional.cross_entropy(module(rows[0]), stop_labels[0].argmax(1)).item()
        since += 1
        if now < best:
            best, since = now, 0
            kept = {key: value.clone() for key, value in module.state_dict().items()}
        if since >= plan.patience:
            break
    module.load_state_dict(kept)
    module.eval()
    with torch.no_grad():
        return module(torch.from_numpy((features[0] - given.centre) @ given.projection)).numpy()


@pytest.mark.parametrize("top", QUICK)
def test_as_an_ordinary_torch_module(top):
    from topgraft.heads._network import score
    from topgraft.heads._torch_feed import Plan

    features, labels = photos(count=83)
    fold = np.arange(70)
    plan = Plan(epochs=8, patience=3)  # more steps let float32 rounding grow past the tolerance
    single = job(top(rate=0.003), seed=3)
    (layers,) = trained(features, labels, [single], [fold], plan)
    np.testing.assert_allclose(
        score(layers, features[0]), ordinary(features, labels, single, fold, plan), atol=2e-3
    )


def test_the_scored_part_and_foreign_folds_change_nothing():
    features, labels = photos()
    cut = make_folds(labels, None, 3)
    single = job(T1(), fold=1)
    (before,) = trained(features, labels, [single], [fit for fit, _ in cut])
    spoiled = features.copy()
    spoiled[:, cut[1][1]] += 100
    (after,) = trained(spoiled, labels, [single], [fit for fit, _ in cut])
    assert all((a[0] == b[0]).all() for a, b in zip(before, after, strict=True))


def test_the_inner_split_keeps_groups_together_and_out_of_training():
    features, labels = photos()
    groups = np.arange(90) // 2 % 30
    given = prepare(features, labels, groups, np.arange(80), seed=1)
    assert not set(groups[given.rows]) & set(groups[given.stop])
    assert set(given.rows) | set(given.stop) == set(range(80))
    assert 0.1 < len(given.stop) / 80 < 0.3
    spoiled = features.copy()
    spoiled[:, given.stop] += 100
    assert (prepare(spoiled, labels, groups, np.arange(80), seed=1).projection == given.projection).all()


def test_what_is_too_large_to_keep_is_made_again_each_epoch(monkeypatch):
    from topgraft.heads import _axes

    features, labels = photos()
    kept = T1().fit(features, labels)
    monkeypatch.setattr(_axes, "MOST_KEPT", 0)
    made = T1().fit(features, labels)
    np.testing.assert_allclose(made.logits(features[0]), kept.logits(features[0]), atol=2e-3)


def test_dropout_on_features_scatters_the_axes_as_drawing_it_does():
    features, labels = photos(width=400)
    given = prepare(features, labels, None, np.arange(90), seed=0)
    mean, spread = given.coordinates_of(features, 1, np.array([5]))
    row = features[1, given.rows[5]] - given.centre
    rng = np.random.default_rng(0)
    drawn = (row * (rng.random((4000, 400)) < 0.5) / 0.5) @ given.projection
    np.testing.assert_allclose(drawn.mean(0), mean[0], atol=5 * spread.max() / 4000**0.5)
    np.testing.assert_allclose(drawn.std(0), spread[0], rtol=0.08)


def test_the_axes_hold_what_the_best_axes_hold():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((2, 150, 30)) @ rng.standard_normal((30, 300))).astype(np.float32)
    given = prepare(features, np.zeros(150, int), None, np.arange(150), seed=0)
    rows = (features[:, given.rows].reshape(-1, 300) - given.centre) / features[:, given.rows].std((0, 1))
    axes = given.projection * features[:, given.rows].std((0, 1))[:, None]
    assert axes.shape == (300, 30)  # no more than the rows span
    np.testing.assert_allclose(axes.T @ axes, np.eye(30), atol=1e-3)
    assert ((rows @ axes) ** 2).sum() == pytest.approx((rows**2).sum(), rel=1e-3)


@pytest.mark.parametrize("top", [*QUICK, pytest.param(Deep, marks=pytest.mark.nightly)])
def test_a_sweep_learns_and_agrees_with_the_fitted_head(top):
    features, labels = photos(count=120, strength=0.6)
    cut = make_folds(labels, None, 3)
    settings = top.grid()
    found = top.sweep(features, labels, cut, settings, classes=3)
    for scored, (_, held) in zip(found, cut, strict=True):
        assert scored.shape == (len(settings), len(held), 3)
        assert ((scored.argmax(2) == labels[held]).mean(axis=1) > 0.8).all()


def test_a_trained_head_needs_no_torch(tmp_path):
    from safetensors.numpy import save_file

    features, labels = photos()
    head = MLP(widths="16-8").fit(features, labels)
    save_file({**head.state(), "rows": features[0], "logits": head.logits(features[0])}, tmp_path / "head")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from safetensors.numpy import load_file\n"
        "from topgraft.errors import MissingExtraError\n"
        "from topgraft.heads._network import MLP\n"
        f"kept = load_file({str(tmp_path / 'head')!r})\n"
        "rows, logits = kept.pop('rows'), kept.pop('logits')\n"
        f"head = MLP.from_state({head.setting!r}, kept)\n"
        "np.testing.assert_allclose(head.logits(rows), logits, atol=1e-5)\n"
        "try: head.fit(rows, np.arange(len(rows)) % 2)\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the head 'mlp' needs the `timm` extra" in done.stdout


def test_flat_reads_maps_channel_by_channel():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    maps = rng.standard_normal((2, 80, 6, 3, 3)).astype(np.float32) * np.arange(1, 7)[:, None, None]
    maps[:, :, 2, 0, 0] += 15 * labels  # in one corner of one channel: pooling would bury it
    head = Flat().fit(maps, labels)
    heads = [head, *(Flat().fit(maps, labels, seed=seed) for seed in (1, 2, 3))]
    # One draw of 16 photos to stop by is luck: four of them are less.
    assert np.mean([head.logits(maps[0]).argmax(1) == labels for head in heads]) > 0.9
    assert isinstance(head.layers()[0], Flatten)
    assert head.layers()[1].weight.shape == (54, 2)
    given = prepare(maps.reshape(2, 80, -1), labels, None, np.arange(80), seed=0, positions=9)
    assert (given.centre.reshape(6, 9) == given.centre.reshape(6, 9)[:, :1]).all()


def test_weights_move_the_decision_and_weight_nought_is_absence():
    features, labels = photos(classes=2, strength=0.05)
    rare = np.where(labels == 1, 10.0, 1.0)
    plain, weighted = Light().fit(features, labels), Light().fit(features, labels, sample_weight=rare)
    assert weighted.logits(features[0]).argmax(1).sum() > plain.logits(features[0]).argmax(1).sum() + 5


def test_a_few_photos_are_enough():
    features, labels = photos(count=4, classes=2)
    head = T1().fit(features[:1], labels)
    assert np.isfinite(head.logits(features[0])).all()
    alone = Light().fit(features[:, :2], labels[:2])
    assert np.isfinite(alone.logits(features[0])).all()


def test_a_constant_feature_says_nothing():
    features, labels = photos()
    features[..., 3] = 5
    head = T1().fit(features, labels)
    moved = features[0].copy()
    moved[:, 3] = 50
    np.testing.assert_allclose(head.logits(moved), head.logits(features[0]), atol=1e-4)


def test_without_torch_the_comparison_goes_on_and_says_so():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from topgraft.errors import MissingExtraError\n"
        "from topgraft.selection.compare import pick\n"
        "found, notes = pick('all', multilabel=False, maps=False)\n"
        "print([head.name for head in found], notes)\n"
        "try: pick(['ridge', 't1'], multilabel=False, maps=False)\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    listed, refused = done.stdout.splitlines()
    assert "'ridge'" in listed
    assert "Left out linear_bn, light, t1, flat, two_dense, deep, mlp: pip install 'topgraft[timm]'" in listed
    assert refused.startswith("the head 't1' needs the `timm` extra")


def test_networks_take_part_in_the_comparison():
    from topgraft.selection.compare import compare, fit_chosen

    features, labels = photos(count=60, classes=2, strength=0.6)
    groups = np.arange(60) // 2
    found = compare(features, labels, groups, heads=["light", "t1"], folds=3, seed=1)
    assert {row["head"] for row in found.rows} == {"light", "t1"}
    assert found.rows[0]["accuracy"]["value"] > 0.8
    head = fit_chosen(found, features, labels, groups, seed=1)
    assert (head.logits(features[0]).argmax(1) == labels).mean() > 0.9


def test_names_and_settings():
    tops = {name for name, entry in HEADS.items() if entry.requires}
    assert tops == {"t1", "light", "flat", "two_dense", "deep", "linear_bn", "mlp"}
    for name in tops:
        top = head_class(name)
        assert issubclass(top, Network)
        assert all(top(**setting).setting == setting for setting in top.grid())
    assert repr(MLP(widths="128-64")) == "MLP(widths=128-64, dropout=0.5, rate=0.001, decay=0.1)"
    with pytest.raises(UnknownNameError, match="decay"):
        T1(weight_decay=1)
    with pytest.raises(UsageError, match="dropout must be from 0 to below 1, got 1"):
        T1(dropout=1)
    with pytest.raises(UsageError, match="widths must be whole numbers joined by -"):
        MLP(widths="64,32")
    with pytest.raises(UsageError, match="not fitted yet"):
        T1().logits(np.zeros((2, 3), np.float32))


def test_a_feature_that_never_varies_has_no_scale():
    features, labels = photos(count=60, width=20)
    features[:, :, 4] = 50.3  # a mean of float32 numbers is off by its last bit
    given = prepare(features, labels, None, np.arange(60), seed=0)
    assert (given.projection[4] == 0).all()
    assert np.abs(given.projection).max() < 10


def test_photos_that_weigh_nothing_are_not_there():
    features, labels = photos(count=90)
    weight = np.where(np.arange(90) % 3 == 0, 0.0, 1.0)
    weight[:40] = 0
    kept = np.flatnonzero(weight)
    given = {"rate": 0.003, "decay": 1.0}
    (weighed,) = LinearBN(**given).fit(features, labels, sample_weight=weight, classes=3).layers()
    assert np.isfinite(weighed.weight).all()
    answers = LinearBN(**given).fit(features, labels, sample_weight=weight, classes=3).logits(features[0])
    right = answers.argmax(axis=1)[kept] == labels[kept]
    assert right.mean() > 0.8
    with pytest.raises(DataError, match="weighs something"):
        LinearBN(**given).fit(features, labels, sample_weight=np.zeros(90))


def test_a_loss_that_is_no_number_is_told():
    features, labels = photos(count=90)
    with pytest.raises(DataError, match="not a finite number"):
        LinearBN(rate=0.003, decay=1.0).fit(features, labels, sample_weight=np.full(90, np.inf))
