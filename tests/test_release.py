"""What is released: wheel and sdist, as an index shows them, and the wheel alone in an empty environment."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import topgraft as tg
from topgraft.recipes import SHIPPED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*words, **options):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_version_is_one():
    assert tg.__version__ == PROJECT["version"]
    assert f"\n## {PROJECT['version']} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.nightly
@pytest.mark.timeout(900)
class TestRelease:
    def test_an_index_would_take_both(self, dist):
        assert sorted(path.suffix for path in dist.iterdir()) == [".gz", ".whl"]
        assert run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()).count("PASSED") == 2

    def test_the_wheel_holds_what_is_not_python_and_no_tests(self, dist):
        names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
        assert {f"topgraft/recipes/{name}.toml" for name in SHIPPED} <= set(names)
        assert "topgraft/py.typed" in names
        assert all(name.startswith(("topgraft/", "topgraft-")) for name in names)

    def test_a_wheel_can_be_made_of_the_sdist(self, dist, tmp_path):
        with tarfile.open(next(dist.glob("*.tar.gz"))) as tar:
            tar.extractall(tmp_path, filter="data")
        (source,) = tmp_path.iterdir()
        run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "made", source)
        made, kept = next((tmp_path / "made").glob("*.whl")), next(dist.glob("*.whl"))
        assert sorted(zipfile.ZipFile(made).namelist()) == sorted(zipfile.ZipFile(kept).namelist())

    def test_the_wheel_alone_does_the_job(self, installed, tmp_path):
        """As a user has it: a new environment, the core, another folder, nothing of the checkout."""
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        here = {"cwd": tmp_path, "env": alone | {"TOPGRAFT_CACHE_DIR": str(tmp_path / "cache")}}
        assert run(installed, "--version", **here).strip() == PROJECT["version"]
        run(installed, "demo", "--each", "12", **here)
        run(installed, "train", "demo/photos", "-o", "run", "--policies", "1", **here)
        said = run(installed, "predict", "run", "demo/photos/sushi/sushi_000.jpg", **here)
        assert said.startswith("demo/photos/sushi/sushi_000.jpg\t")
        run(installed, "export", "run", "-o", "out", "--format", "openvino", **here)
        assert (tmp_path / "out" / "model.xml").is_file()
        assert run(installed, "run", "quick", "demo/photos", **here)
