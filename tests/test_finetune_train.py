"""The cut, the cache and the training loop: the same network, trained the same way, without its prefix."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the timm extra")
timm = pytest.importorskip("timm", reason="needs the timm extra")

from safetensors.torch import load_file  # noqa: E402

from topgraft._finetune.cache import Activations  # noqa: E402
from topgraft._finetune.checkpoint import Checkpoint  # noqa: E402
from topgraft._finetune.cut import cut  # noqa: E402
from topgraft._finetune.fold import Folded  # noqa: E402
from topgraft._finetune.plan import Training  # noqa: E402
from topgraft._finetune.train import TailInputs, Tuned, batches, logits, pack, take_step, train, unpack  # noqa: E402
from topgraft.backbones import _torch_depths  # noqa: E402
from topgraft.backbones._torch import groups  # noqa: E402
from topgraft.errors import BackboneError, DataError, StoreError, UsageError  # noqa: E402
from topgraft.heads._layers import Affine  # noqa: E402
from topgraft.importers import _timm  # noqa: E402

pytestmark = pytest.mark.timm

SIDE = 64
NETWORKS = {  # architecture: (input side, what makes it small)
    "mobilenetv1_100": (SIDE, {}),
    "mobilenetv2_050": (SIDE, {}),
    "mobilenetv3_small_050": (SIDE, {}),
    "efficientnet_lite0": (SIDE, {}),
    "resnet18": (SIDE, {}),
    "inception_v3": (96, {}),
    "densenet121": (SIDE, {}),
    "convnext_atto": (SIDE, {}),
    "vit_tiny_patch16_224": (SIDE, {"img_size": SIDE}),
    "legacy_xception": (96, {}),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(name="mobilenetv1_100", seed=0, **more):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=0, **more).eval()
    with torch.no_grad():  # statistics of its own, so that BatchNorm matters and signals neither die nor grow
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.to(memory_format=torch.channels_last)


def pictures(n, side=SIDE, seed=0):
    drawn = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return drawn.contiguous(memory_format=torch.channels_last)


def last(model, k):
    return [names for _, names in groups(model)[-k:]]


def parts(model, k, side=SIDE):
    blocks = last(model, k)
    return cut(model, [name for names in blocks for name in names], (side, side)), blocks


def head_of(model, classes=2, seed=1):
    drawn = np.random.default_rng(seed).normal(size=(model.num_features, classes)) * 0.05
    return Affine(drawn.astype(np.float32), np.zeros(classes, np.float32))


def inputs_of(parting, images):
    with torch.no_grad():
        rows = pack(parting.prefix(images)).numpy()
    return TailInputs(rows, np.arange(len(rows))[None], parting.shapes)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_of_any_architecture_are_the_whole(name, k):
    side, more = NETWORKS[name]
    model = network(name, **more)
    parting, blocks = parts(model, k, side)
    images = pictures(3, side)
    with torch.no_grad():
        whole, apart = model(images), parting.tail(*parting.prefix(images))
    assert torch.allclose(whole, apart, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    trained = {name for names in blocks for name in names}
    assert trained <= {name for name, _ in parting.tail.named_parameters()}
    assert not trained & {name for name, _ in parting.prefix.named_parameters()}


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "inception_v3", "densenet121", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_the_parts_give_every_depth_as_the_whole_does(name):
    side, more = NETWORKS[name]
    model = network(name, **more)
    depths = _timm._depths(model, (side, side))
    images = pictures(3, side)
    trained = [name for names in last(model, 3) for name in names]
    parting = cut(model, trained, (side, side), depths)
    assert 0 < sum(map(bool, parting.blocks)) <= len(depths)
    with torch.no_grad():
        whole, apart = every_row(model, depths, images), parting.tail(*parting.prefix(images))
    assert torch.allclose(whole, apart, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def every_row(model, depths, images):
    with _torch_depths.statistics(model, depths) as found:
        features = model(images)
        return torch.cat([features, _torch_depths.blocks(found, depths)], 1)


def test_gradients_reach_the_blocks_through_their_statistics():
    """Those of what runs the whole network, and finite where a channel does not vary."""
    whole, model = (network("resnet18").requires_grad_(False) for _ in range(2))
    depths = _timm._depths(model, (SIDE, SIDE))
    parting = cut(model, [name for names in last(model, 4) for name in names], (SIDE, SIDE), depths)
    assert sum(map(bool, parting.blocks)) == 4
    images, got = pictures(4), []
    direction = torch.randn(sum(depth.channels * 2 for depth in depths) + model.num_features)
    activations = parting.prefix(images)
    for body, run in (
        (model, lambda: parting.tail(*activations)),
        (whole, lambda: every_row(whole, depths, images)),
    ):
        with torch.no_grad():
            body.get_parameter("layer4.1.bn2.bias")[:8] = -100.0  # units that are never on
        weights = [body.get_parameter(name).requires_grad_() for names in last(body, 4) for name in names]
        (run() @ direction).sum().backward()
        got.append([weight.grad for weight in weights])
    for ours, theirs in zip(*got, strict=True):
        assert torch.isfinite(ours).all()
        known = torch.isfinite(theirs)
        assert torch.allclose(ours[known], theirs[known], rtol=1e-3, atol=1e-4 * float(ours.abs().max()))


def test_a_standardised_head_answers_as_the_plain_one():
    net, inputs, _ = task()
    rng = np.random.default_rng(0)
    head, width = net.affine(), len(net.affine().weight)
    standard = rng.normal(size=width), np.where(rng.random(width) < 0.1, 0, rng.uniform(0.01, 100, width))
    plain = Affine(head.weight * (standard[1][:, None] > 0), head.bias)
    other = Tuned(net.tail, net.blocks, plain, standard)
    net.begin(plain)
    photos = np.arange(8)
    np.testing.assert_allclose(logits(other, inputs, photos), logits(net, inputs, photos), atol=1e-3)
    np.testing.assert_allclose(other.affine().weight, plain.weight, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(other.affine().bias, plain.bias, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenetv1_100", "resnet18", "densenet121", "vit_tiny_patch16_224"])
def test_a_packed_row_comes_back(name):
    side, more = NETWORKS[name]
    parting, _ = parts(network(name, **more), 2, side)
    with torch.no_grad():
        values = parting.prefix(pictures(2, side))
    rows = pack(values)
    assert rows.shape == (2, parting.width)
    pieces = rows.split([int(np.prod(shape)) for shape in parting.shapes], dim=1)
    for value, piece, shape in zip(values, pieces, parting.shapes, strict=True):
        back = unpack(piece, shape)
        assert torch.equal(back, value)
        assert value.ndim != 4 or back.is_contiguous(memory_format=torch.channels_last)


class Whole(torch.nn.Module):
    """The uncut network with a head, as anybody would train it."""

    def __init__(self, model, head):
        super().__init__()
        self.model, self.head = model, torch.nn.Linear(*head.weight.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight.T))
            self.head.bias.copy_(torch.from_numpy(head.bias))

    def forward(self, images):
        return self.head(self.model(images))


@pytest.mark.parametrize("name", ["mobilenetv1_100", "resnet18", "vit_tiny_patch16_224"])
def test_twenty_steps_from_cached_activations_are_twenty_steps_of_the_whole(name):
    side, more = NETWORKS[name]
    plan = Training(batch=4, rate=1e-3, head_rate=1e-3)
    images, labels = pictures(16, side), np.arange(16) % 2
    whole = Whole(network(name, **more), head_of(network(name, **more)))
    cached = network(name, **more)
    parting, blocks = parts(cached, 3, side)
    start = copy.deepcopy(cached.state_dict())
    net, inputs = Tuned(parting.tail, blocks, head_of(cached)), inputs_of(parting, images)
    assert inputs.rows.dtype == np.float32

    named = dict(whole.model.named_parameters())
    trained = [name for names in blocks for name in names]
    for name_, weight in named.items():
        weight.requires_grad_(name_ in trained)
    # plain steps: Adam divides by the gradient's size, and so makes a large difference of a rounding one
    ours = torch.optim.SGD([weight for group in net.groups(plan) for weight in group["params"]], lr=0.01)
    theirs = torch.optim.SGD([*(named[name_] for name_ in trained), *whole.head.parameters()], lr=0.01)
    for step in range(20):
        photos, views = next(batches(np.arange(16), 1, plan, step))
        one = take_step(net, ours, inputs.take(photos, views), labels[photos])
        other = take_step(whole, theirs, (images[photos],), labels[photos])
        assert one == pytest.approx(other, rel=1e-4)
    moved = 0
    for name_ in trained:
        now, then = cached.get_parameter(name_), start[name_]
        assert torch.allclose(now, named[name_], rtol=1e-4, atol=1e-6), name_
        moved += not torch.equal(now, then)
    assert moved > len(trained) / 2
    assert torch.allclose(net.head.weight, whole.head.weight, rtol=1e-4, atol=1e-6)
    for name_, weight in cached.named_parameters():
        assert name_ in trained or torch.equal(weight, start[name_])
    for name_, value in cached.named_buffers():
        assert torch.equal(value, start[name_]), f"{name_}: a frozen statistic moved"


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_050",
        "efficientnet_lite0",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("mobilenetv1_100", "resnet18")),
    ],
)
def test_twenty_steps_with_folded_batchnorms_are_those_of_the_whole_in_double_precision(name):
    """In single precision MobileNet v2 is no test: rounding 1e-7 of a pixel moves its weights by a hundredth
    of their way, since a value that crosses the kink of a ReLU6 changes gradients by all of itself."""
    side, more = NETWORKS[name]
    whole, model = (network(name, **more).requires_grad_(False) for _ in range(2))
    parting, blocks = parts(model, 3, side)
    assert sum(isinstance(module, Folded) for module in parting.tail.modules()) >= 5
    trained = [name for names in blocks for name in names]
    ours = Tuned(parting.tail, blocks, head_of(model))
    theirs = Whole(whole, head_of(whole)).double()
    model.double(), ours.double()
    images, labels = pictures(16, side).double(), torch.arange(16) % 2
    activations = parting.prefix(images)
    steps = [
        (lambda some: ours(*(one[some] for one in activations)), model, ours.head),
        (lambda some: theirs(images[some]), whole, theirs.head),
    ]
    for run, body, head in steps:
        weights = [body.get_parameter(name).requires_grad_() for name in trained]
        optimiser = torch.optim.SGD([*weights, *head.parameters()], lr=0.001)
        for step in range(20):
            some = torch.arange(4) + step % 4 * 4
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(run(some), labels[some]).backward()
            optimiser.step()
    for name in trained:
        torch.testing.assert_close(
            model.get_parameter(name), whole.get_parameter(name), rtol=1e-9, atol=1e-10
        )


def test_a_batchnorm_that_learns_its_statistics_is_not_folded():
    model = network()
    parting, blocks = parts(model, 1)
    net = Tuned(parting.tail, blocks, head_of(model))
    norm = next(module for module in parting.tail.modules() if isinstance(module, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    net.learn(batch_norm=True)
    with torch.no_grad():
        net(*parting.prefix(pictures(4)))
    assert not torch.equal(norm.running_mean, before)


def test_a_network_that_cannot_be_cut_says_so():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, images):
            return self.layer(images.mean((2, 3))) if images.sum() > 0 else images

    with pytest.raises(BackboneError, match="Branching: cannot be traced"):
        cut(Branching(), ["layer.weight"], (8, 8))
    with pytest.raises(UsageError, match="expected weights to train"):
        cut(network(), ["no.such.weight"], (SIDE, SIDE))


def test_every_photo_is_dealt_once_an_epoch_in_an_order_of_its_own():
    fit = np.array([3, 5, 7, 8, 9, 11, 20])
    plan = Training(batch=3, seed=4)
    dealt = [list(batches(fit, 5, plan, epoch)) for epoch in range(2)]
    for epoch in dealt:
        photos = np.concatenate([one for one, _ in epoch])
        assert sorted(photos.tolist()) == fit.tolist()
        assert [len(one) for one, _ in epoch] == [3, 2, 2]
        assert all(0 <= view < 5 for _, views in epoch for view in views)
    assert [one.tolist() for one, _ in dealt[0]] != [one.tolist() for one, _ in dealt[1]]
    again = list(batches(fit, 5, plan, 1))
    assert all(
        np.array_equal(a, b)
        for one, two in zip(again, dealt[1], strict=True)
        for a, b in zip(one, two, strict=True)
    )


def task(k=2, n=24):
    """A network, its inputs and labels that its features nearly tell apart."""
    model = network()
    parting, blocks = parts(model, k)
    inputs = inputs_of(parting, pictures(n))
    features = logits(parting.tail, inputs, np.arange(n))
    score = features @ np.random.default_rng(3).normal(size=features.shape[1])
    labels = (score > np.median(score)).astype(np.int64)
    return Tuned(parting.tail, blocks, head_of(model)), inputs, labels


PLAN = Training(epochs=6, batch=5, rate=3e-3, head_rate=3e-3, patience=6)
FIT, HELD = np.arange(16), np.arange(16, 24)


def test_training_lowers_the_loss_and_keeps_the_best_weights():
    net, inputs, labels = task()
    before = net.copy()
    lines = train(net, inputs, labels, PLAN, fit=FIT, held=HELD)
    assert [one["epoch"] for one in lines] == list(range(len(lines)))
    assert lines[-1]["train_loss"] < lines[1]["train_loss"]
    assert any(not torch.equal(before[name], value) for name, value in net.copy().items())
    best = min(lines, key=lambda one: one["loss"])
    from topgraft._finetune.train import measure

    assert measure(net, inputs, labels, HELD)["loss"] == pytest.approx(best["loss"], rel=1e-6)


def test_training_stops_when_nothing_gets_better():
    net, inputs, labels = task()
    plan = Training(epochs=9, batch=5, rate=10.0, head_rate=10.0, patience=2)
    before = net.copy()
    lines = train(net, inputs, labels, fit=FIT, held=HELD, plan=plan)
    assert len(lines) == 3
    assert all(torch.equal(before[name], value) for name, value in net.copy().items())


def test_deeper_blocks_learn_slower_and_the_schedule_warms_up():
    net, inputs, labels = task(k=3)
    peaks = [group["peak"] for group in net.groups(Training(rate=1.0, depth=0.5, head_rate=7.0))]
    assert peaks == [1.0, 0.5, 0.25, 7.0]
    plan = Training(epochs=8, batch=16, rate=1e-5, warmup=0.25, patience=8)
    lines = train(net, inputs, labels, plan, fit=FIT, held=HELD)
    rates = [one["rate"] for one in lines[1:]]
    assert rates[0] < max(rates)
    assert rates[-1] < 0.1 * max(rates)


def test_batch_norm_stands_still_unless_asked():
    net, inputs, labels = task()
    names = [name for name, _ in net.named_buffers() if name.endswith("running_mean")]
    assert names
    before = net.copy()
    train(net, inputs, labels, fit=FIT, held=FIT, plan=Training(epochs=1, batch=5))
    assert all(torch.equal(before[name], net.copy()[name]) for name in names)
    train(
        net,
        inputs,
        labels,
        fit=FIT,
        held=HELD,
        plan=Training(epochs=1, batch=5, batch_norm="train", patience=1),
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net.learn(batch_norm=True)
    take_step(net, optimiser, inputs.take(FIT, 0), labels[FIT])
    net.learn(batch_norm=False)
    assert not any(torch.equal(before[name], net.copy()[name]) for name in names)


def test_several_labels_train_with_a_sigmoid_each():
    net, inputs, labels = task()
    both = np.stack([labels, 1 - labels], axis=1)
    lines = train(net, inputs, both, fit=FIT, held=HELD, plan=PLAN)
    assert lines[-1]["train_loss"] < lines[1]["train_loss"]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path, at):
    whole, inputs, labels = task()
    lines = train(whole, inputs, labels, PLAN, fit=FIT, held=HELD)

    def stop(epoch):
        if epoch == at:
            raise StoppedError

    net, inputs, labels = task()
    kept = Checkpoint(tmp_path / "kept" / "fold.safetensors", "this")
    with pytest.raises(StoppedError):
        train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=kept, tell=stop)
    net, inputs, labels = task()
    resumed = train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=kept)
    assert [{**one, "seconds": 0} for one in resumed] == [{**one, "seconds": 0} for one in lines]
    for name, value in whole.copy().items():
        assert torch.equal(net.copy()[name], value), name
    with pytest.raises(DataError, match="belongs to a training with other photos or options"):
        train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=Checkpoint(kept.path, "that"))


def test_a_slow_disk_keeps_the_epoch_it_was_given(tmp_path, monkeypatch):
    """What is written while the next epoch is trained is the epoch before, and none is left out."""
    saved, save = [], Checkpoint.save

    def slowly(self, tensors, facts):
        time.sleep(0.3)
        saved.append({name: value.clone() for name, value in tensors.items()})
        save(self, tensors, facts)

    kept = Checkpoint(tmp_path / "fold.safetensors", "this")
    for until in (1, 2, 3):
        net, inputs, labels = task()
        train(
            net, inputs, labels, PLAN, fit=FIT, held=HELD, until=until, checkpoint=kept
        )  # goes on from before
        saved.append(load_file(kept.path))
    whole, saved = saved, []
    kept.path.unlink()
    monkeypatch.setattr(Checkpoint, "save", slowly)
    net, inputs, labels = task()
    train(net, inputs, labels, PLAN, fit=FIT, held=HELD, until=3, checkpoint=kept)
    assert len(saved) == 3
    for slow, at_once in zip(saved, whole, strict=True):
        assert slow.keys() == at_once.keys()
        assert all(torch.equal(value, at_once[name]) for name, value in slow.items())


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:200], lambda _: b""]
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, damage):
    net, inputs, labels = task()
    kept = Checkpoint(tmp_path / "fold.safetensors", "this")
    train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=kept, until=1)
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    net, inputs, labels = task()
    with pytest.raises(DataError, match=r"fold\.safetensors: is damaged \(.*Give --overwrite") as caught:
        train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=kept)
    assert "\n" not in str(caught.value)


def test_a_disk_too_full_for_a_checkpoint_is_one_line(small_disk):
    net, inputs, labels = task()
    kept = Checkpoint(small_disk / "fold.safetensors", "this")
    with pytest.raises(StoreError, match=r"the disk is full\. Free some space and .*--resume") as caught:
        train(net, inputs, labels, PLAN, fit=FIT, held=HELD, checkpoint=kept)
    assert "\n" not in str(caught.value)


def test_activations_are_found_by_content_and_added_once(tmp_path):
    drawn = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    keys = [(f"photo{i}", "identity") for i in range(5)]
    kept = Activations(tmp_path / "cut", 7)
    assert kept.missing([*keys[:3], keys[0]]) == keys[:3]
    assert kept.rows().shape == (0, 7)
    with kept.writing():
        kept.add(keys[:3], drawn[:3])
    again = Activations(tmp_path / "cut", 7)
    assert again.missing(keys) == keys[3:]
    with again.writing():
        again.add(keys[3:], drawn[3:])
    order = [4, 0, 2]
    assert np.array_equal(
        again.rows()[again.places([keys[i] for i in order])], drawn[order].astype(np.float16)
    )
    with kept.writing():  # what another process added is seen before anything is added twice
        assert kept.missing(keys) == []


def test_activations_beyond_float16_are_refused(tmp_path):
    kept = Activations(tmp_path / "cut", 2)
    with kept.writing(), pytest.raises(BackboneError, match="beyond float16"):
        kept.add([("photo", "identity")], np.array([[1.0, 7e4]], np.float32))
    assert Activations(tmp_path / "cut", 2).missing([("photo", "identity")])
    exact = Activations(tmp_path / "exact", 2, exact=True)
    with exact.writing():
        exact.add([("photo", "identity")], np.array([[1.0001, 7e4]], np.float32))
    again = Activations(tmp_path / "exact", 2, exact=True)
    assert np.array_equal(again.rows(), np.array([[1.0001, 7e4]], np.float32))


KILL = """
import os, sys
import numpy as np
from pathlib import Path
from topgraft._finetune import cache
kept = cache.Activations(Path(sys.argv[1]), 1000)
after, written = int(sys.argv[2]), 0
sync = os.fsync
def fsync(handle):
    global written
    written += 1
    if written == after:
        os.kill(os.getpid(), 9)
    sync(handle)
os.fsync = fsync
for i in range(0, 12, 2):
    keys = [(f"photo{i}", "identity"), (f"photo{i + 1}", "identity")]
    todo = kept.missing(keys)
    if todo:
        with kept.writing():
            kept.add(todo, np.stack([np.full(1000, int(one[0][5:]), np.float32) for one in todo]))
"""


def test_a_killed_process_loses_no_row_that_counts(tmp_path):
    keys = [(f"photo{i}", "identity") for i in range(12)]
    for after in (1, 2, 3, 6, 99):
        folder = tmp_path / "cut"
        done = subprocess.run([sys.executable, "-c", KILL, folder, str(after)], check=False, env=os.environ)
        assert done.returncode == (0 if after == 99 else -signal.SIGKILL)
        kept = Activations(folder, 1000)
        there = [key for key in keys if not kept.missing([key])]
        rows = kept.rows()[kept.places(there)]
        assert all((row == int(key[0][5:])).all() for key, row in zip(there, rows, strict=True))
    assert there == keys


def test_a_line_that_is_not_whole_does_not_count(tmp_path):
    kept = Activations(tmp_path / "cut", 3)
    with kept.writing():
        kept.add([("a", "identity"), ("b", "identity")], np.ones((2, 3), np.float32))
    index = tmp_path / "cut" / "rows.txt"
    whole = index.read_text()
    index.write_text(whole[:-4])
    torn = Activations(tmp_path / "cut", 3)
    assert torn.missing([("a", "identity"), ("b", "identity")]) == [("b", "identity")]
    assert index.read_text() == whole[:-4]  # who reads leaves it to who writes
    with torn.writing():
        torn.add([("b", "identity")], np.full((1, 3), 2, np.float32))
    assert Activations(tmp_path / "cut", 3).rows().tolist() == [[1, 1, 1], [2, 2, 2]]
    assert [line.split("\t")[:2] for line in index.read_text().splitlines()] == [
        ["a", "identity"],
        ["b", "identity"],
    ]


def test_a_kept_row_that_changed_is_not_learned_from(tmp_path):
    keys = [("a", "identity"), ("b", "identity")]
    kept = Activations(tmp_path / "cut", 3)
    with kept.writing():
        kept.add(keys, np.ones((2, 3), np.float32))
    rows = tmp_path / "cut" / "rows.f16"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\0")
    again = Activations(tmp_path / "cut", 3)
    assert again.places(keys[:1]).tolist() == [0]
    with pytest.raises(StoreError, match=r"rows\.f16: is damaged\. Delete .*cut"):
        again.places(keys)


@pytest.mark.parametrize("left", [None, 8])
def test_rows_that_are_gone_or_cut_short_are_one_line(tmp_path, left):
    kept = Activations(tmp_path / "cut", 3)
    with kept.writing():
        kept.add([("a", "identity"), ("b", "identity")], np.ones((2, 3), np.float32))
    rows = tmp_path / "cut" / "rows.f16"
    rows.unlink() if left is None else rows.write_bytes(rows.read_bytes()[:left])
    with pytest.raises(StoreError, match=r"rows\.f16: is damaged\. Delete .*cut"):
        Activations(tmp_path / "cut", 3).places([("a", "identity")])


def test_the_result_lies_on_the_way_to_the_trained_weights():
    whole, inputs, labels = task()
    start = whole.copy()
    plan = replace(PLAN, blend=1.0)
    train(whole, inputs, labels, plan, fit=FIT, held=FIT[:0], until=3)
    part, inputs, labels = task()
    lines = train(part, inputs, labels, replace(plan, blend=0.25), fit=FIT, held=FIT[:0], until=3)
    assert len(lines) == 4
    for name, value in part.copy().items():
        if value.is_floating_point():
            expected = 0.75 * start[name] + 0.25 * whole.copy()[name]
            assert torch.allclose(value, expected, rtol=1e-5, atol=1e-7), name
