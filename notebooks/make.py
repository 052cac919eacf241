"""Make the notebooks of `walk.py`, one a backbone, and run them: `python notebooks/make.py [NAME...]`.

They are one walk, so that they stay the same. Only the backbone, what is said of it, and the number of photos
differ; cells of `walk.py` begin with `# %%`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from string import Template

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent
PRETRAINED = (
    "The weights are MobileNet's of ImageNet if they lie beside the checkout, in `../shared/weights`."
    " Otherwise they are random: the walk is the same, the numbers are worse."
)
RANDOM = (
    "**These weights are random.** Pretrained ones come from a hub, and this notebook runs where none can be"
    " reached; so what follows shows the way, not how good $title is. Random features tell colours and"
    ' textures apart, no more. With a network, `tg.load_backbone("$pretrained")` is all that changes.'
)
LOAD = """\
import timm
import torch
from safetensors.torch import save_file

# Random weights need BatchNorm statistics of their own, or numbers grow from layer to layer.
torch.manual_seed(0)
model = timm.create_model("$architecture", pretrained=False)
for layer in model.modules():
    if isinstance(layer, torch.nn.BatchNorm2d):
        layer.momentum = None
with torch.no_grad():
    model.train()(torch.randn(8, *model.default_cfg["input_size"]))
save_file(model.state_dict(), work / "random.safetensors")

backbone = tg.load_backbone("$architecture", weights=work / "random.safetensors")"""
# notebook: (title, architecture, pretrained name, what is said of the weights, photos of each class)
NAMES = {
    "mobilenet": ("MobileNet", "", "", PRETRAINED, 20),
    "resnet50": ("ResNet-50", "resnet50", "resnet50.a1_in1k", RANDOM, 10),
    "inception_v3": ("Inception v3", "inception_v3", "inception_v3.tv_in1k", RANDOM, 10),
}


def make(name: str, each: int | None = None) -> nbformat.NotebookNode:
    """Write one notebook without outputs.

    Args:
        name: which.
        each: photos of each class; None is the notebook's own number.
    """
    title, architecture, pretrained, about, own = NAMES[name]
    about = Template(about).substitute(title=title, pretrained=pretrained)
    walk = (HERE / "walk.py").read_text(encoding="utf-8").replace("EACH = 20", f"EACH = {each or own}")
    made = new_notebook()
    for number, part in enumerate(re.split(r"^# %%", walk, flags=re.MULTILINE)[1:]):
        kind, _, body = part.partition("\n")
        if kind.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cell = new_markdown_cell(Template(text).substitute(title=title, about=about))
        elif kind.strip() == "load" and architecture:
            cell = new_code_cell(Template(LOAD).substitute(architecture=architecture))
        else:
            cell = new_code_cell(body.strip())
        cell.id = f"cell-{number}"
        made.cells.append(cell)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def execute(notebook: nbformat.NotebookNode, timeout_s: int = 600) -> nbformat.NotebookNode:
    """Run a notebook from top to bottom, in this folder; what speaks of the machine is left out."""
    NotebookClient(notebook, timeout=timeout_s, resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Make and run the notebooks named, or all."""
    for name in sys.argv[1:] or NAMES:
        path = HERE / f"{name}.ipynb"
        nbformat.write(execute(make(name)), path)
        print(path.name, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
