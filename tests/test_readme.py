"""The README's first lines: nothing named before it is explained, every link leads to a file, not too long.

Its blocks run with those of the other pages, in `test_docs.py`.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)


@pytest.mark.parametrize("word", ["backbone", "features", "policies", "views", "heads"])
def test_a_word_is_explained_where_it_first_stands(word):
    stem = word.removesuffix("s")
    first = re.search(rf"\b{stem}s?\b", PROSE)
    assert PROSE[first.start() - 1] == "*", (
        f"{word} stands before it is explained: {PROSE[first.start() :][:60]!r}"
    )


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_the_first_result_is_on_the_first_screen():
    before = README.partition("held-out test")[0]
    assert before.count("\n") < 30
