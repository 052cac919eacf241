# %% [markdown]
# # $title, step by step
#
# A pretrained network gets a new top: photos, augmentation policies, features of the frozen base, a top model
# on them, other top models, the whole model fine-tuned, predictions.

# %% [markdown]
# ## 1. Initialisation
#
# The photos are drawn, so that the notebook brings everything it needs. For your own, set `photos` to a
# folder with one folder of photos a class.

# %%
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from IPython.display import Image, Markdown, display
from PIL import Image as Pillow

import topgraft as tg
from topgraft.predictor.saliency import activation_map
from topgraft.testing.drawing import draw_photo, draw_photos

EACH = 20
work = Path(tempfile.mkdtemp())
photos = draw_photos(work / "photos", EACH, seed=0)


def show(picture, width):
    """Show a picture as a small JPEG."""
    out = BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=80)
    display(Image(out.getvalue(), width=width))


# %%
data = tg.Dataset.from_folder(photos)
health = tg.check(data)
split = tg.split(data, test=0.2, seed=0)
print(health.classes, "warnings:", health.warnings)
print(len(split.train), "photos to learn from,", len(split.test), "held out")

# %% [markdown]
# ## 2. Policies
#
# A policy is a recipe of ranges. Each gives every training photo one augmented view; the first picture is the
# photo as it is.

# %%
policies = tg.draw(4, seed=0, grid="grid288")
for policy in policies:
    print(policy)
show(tg.preview(data, policies=policies, ids=split.train, side_px=120), 720)

# %% [markdown]
# ## 3. Base model
#
# $about

# %% load
beside = Path("../../shared/weights/mobilenetv1_100.tflite_in1k")
if beside.is_dir():
    backbone = tg.load_backbone(f"local-dir:{beside}")
else:
    backbone = tg.load_backbone("mobilenetv1_100", weights="random")

# %%
card = backbone.card
print(f"{card.input_size[0]} x {card.input_size[1]} px in, {card.features} features out")
print(f"{sum(block.parameters for block in card.blocks):,} weights in {len(card.blocks)} blocks")

# %% [markdown]
# ## 4. Features
#
# Every photo goes through the frozen base once per view. A second call would compute nothing anew.

# %%
store = tg.embed(data, work / "features.zarr", backbone=backbone, policies=policies)
print(len(store.views), "views of", len(data), "photos:", store.features(0).shape, "each")

# %% [markdown]
# ## 5. Top model
#
# Logistic regression on the features: compared at several strengths by cross-validation on the training side,
# fitted again on all of it, tested once.

# %%
run = tg.train(store, split, heads=["logistic"], folds=3, backbone=backbone, out=work / "logistic")
print(tg.evaluate(run, data, split.test))

# %% [markdown]
# ## 6. Alternative top models
#
# All heads that need no PyTorch, on the same folds; the best setting of each, and the chosen one.

# %%
every = tg.train(store, split, heads="linear", folds=3, backbone=backbone, out=work / "linear")

lines = ["| head | setting | accuracy | log loss | |", "| --- | --- | --- | --- | --- |"]
seen = set()
for row in every.metrics.leaderboard:
    if row.chosen or row.head not in seen:
        seen.add(row.head)
        chosen = "chosen" if row.chosen else ""
        loss = f"{row.log_loss.value:.3f}"
        lines.append(f"| {row.head} | {row.setting} | {row.accuracy} | {loss} | {chosen} |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# ## 7. Whole model
#
# The last block of the base is trained together with the head. Both models together are an ensemble; where it
# is worse than one of its members, that is said.

# %%
tuned = tg.finetune(every, data, blocks=1, backbone=backbone, out=work / "tuned", epochs=3)
print(tg.evaluate([every, tuned], data, split.test))

# %% [markdown]
# ## 8. Predictions
#
# New photos, and where the model looked: what did not speak for its answer is dimmed.

# %%
predictor = tg.load(tuned.path)
strip = []
for name, index in [("sandwich", 900), ("sushi", 900), ("sandwich", 901), ("sushi", 901)]:
    photo = draw_photo(name, index)
    answer = predictor.predict(photo)[0]
    nearest = "something unknown, nearest " if answer.unknown else ""
    print(f"{name}: taken for {nearest}{answer.label} at {answer.probability:.2f}")
    light = 0.3 + 0.7 * activation_map(predictor, photo)[:, :, None]
    both = (photo, (photo * light).astype(np.uint8))
    strip += [np.array(Pillow.fromarray(picture).resize((150, 150))) for picture in both]
show(Pillow.fromarray(np.hstack(strip)), 1200)

# %% [markdown]
# The report of a run puts all of this, and more, into one page.

# %%
page = tg.report(tuned)
print(page.name, "is smaller than 1.5 MB:", page.stat().st_size < 1_500_000)
