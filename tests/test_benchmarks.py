"""Benchmarks: each says its goal, and whether it is met."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "benchmarks"
DRIVEN = {"embed_keras.py", "embed_torch.py"}
"""The other ways, which embed.py asks."""
ALONE = sorted(path.name for path in HERE.glob("*.py") if path.name not in DRIVEN)


@pytest.mark.parametrize("name", ALONE)
def test_its_json_has_a_goal_and_whether_it_is_met(name):
    tree = ast.parse((HERE / name).read_text("utf-8"))
    tables = [
        {key.value for key in one.keys if isinstance(key, ast.Constant)}
        for one in ast.walk(tree)
        if isinstance(one, ast.Dict)
    ]
    assert [keys for keys in tables if "ok" in keys and keys & {"goal", "goals"}]
