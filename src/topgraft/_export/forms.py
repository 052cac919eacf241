"""What lies in an exported folder, form by form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from topgraft import _page
from topgraft._export.runtimes import FILES, NPM, Named
from topgraft.fingerprint import digest
from topgraft.predictor.modelcard import model_card
from topgraft.text import one_line

if TYPE_CHECKING:
    from topgraft._export.agree import Agreement
    from topgraft.predictor import PredictorCard
    from topgraft.run import Run

PAGE = ("page.css", "page.mjs", "worker.mjs", "model.mjs")


def write(folder: Path, form: str, graph: bytes, card: PredictorCard, named: Named) -> None:
    """Write the model, its card and its labels; for `web` the page and the runtime, too."""
    if form == "openvino":
        from topgraft.engines._openvino import save_model

        save_model(graph, folder / "model.xml")
        written = (folder / "model.xml").read_bytes() + (folder / "model.bin").read_bytes()
    else:
        (folder / "model.onnx").write_bytes(graph)
        written = graph
    card = card.model_copy(update={"graph": digest(written)})
    (folder / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "labels.txt").write_text(
        "".join(f"{one_line(name)}\n" for name in card.classes), encoding="utf-8"
    )
    if form == "web":
        _write_page(folder, named)


def _write_page(folder: Path, named: Named) -> None:
    if named.files:
        (folder / "runtime").mkdir()
        for name in FILES:
            shutil.copyfile(named.files / name, folder / "runtime" / name)
        (folder / "runtime" / "LICENCE").write_text(_text("licence.txt", name=named.name), encoding="utf-8")
    for name in PAGE:
        text = _page.part(name).decode().replace("{{ npm }}", NPM)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "ask.mjs").write_bytes(_page.part("ask-here.mjs"))
    page = _page.part("page.html").decode().replace("{{ policy }}", _page.POLICY)
    (folder / "index.html").write_text(page, encoding="utf-8")
    kept = [
        "./",
        *sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()),
    ]
    whole = digest(b"".join((folder / name).read_bytes() for name in kept[1:]))
    text = _page.part("offline.js").decode()
    text = text.replace("{{ digest }}", whole).replace("{{ files }}", json.dumps(kept))
    (folder / "offline.js").write_text(text, encoding="utf-8")


def write_readme(
    folder: Path,
    form: str,
    precision: str,
    card: PredictorCard,
    agreement: Agreement,
    run: Run,
    named: Named,
) -> None:
    """Write the README: how to use the files, what was checked, and the model card."""
    text = _text(
        "README.md",
        form=form,
        precision=precision,
        card=card,
        agreement=agreement,
        named=named,
        npm=NPM,
        files=FILES,
        model=model_card(run),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _text(template: str, **facts: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("topgraft._export", "templates"),
        autoescape=False,  # noqa: S701  Markdown and plain text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**facts)
