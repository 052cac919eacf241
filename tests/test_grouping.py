"""Photos that belong together by their path, by the camera's clock, and what `check` proposes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import topgraft as tg
from commands import topgraft
from tiny import TINY
from topgraft._check import check
from topgraft.errors import UnknownNameError, UsageError
from topgraft.photos.grouping import Grouping, bursts
from topgraft.text import seconds


def photo(path: Path, seed: int, when: str = "", camera: str = "") -> None:
    """Write a photo of smooth random colours, with what a camera notes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    noted = Image.Exif()
    if when:
        noted.get_ifd(0x8769)[0x9003] = when
    if camera:
        noted[0x0110] = camera
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((96, 80), Image.Resampling.BICUBIC).save(path, exif=noted)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes from three sites; one burst goes over both, one photo has no time."""
    folder = tmp_path / "photos"
    times = ["10:00:00", "10:00:50", "10:01:40", "12:00:00", "13:00:00", ""]
    for i, time in enumerate(times):
        name = ("ants", "bees")[i % 2]
        when = f"2026:05:01 {time}" if time else ""
        photo(folder / name / f"site{i // 2}_{i}.jpg", i, when, "A1" if i < 4 else "")
    return folder


def grouped(data: tg.Dataset) -> list[list[str]]:
    """List what belongs together."""
    found: dict[int, list[str]] = {}
    for sample, group in zip(data.samples, data.groups.tolist(), strict=True):
        found.setdefault(group, []).append(Path(sample.id).stem)
    return sorted(sorted(names) for names in found.values())


def test_a_part_of_the_path_joins_photos_whatever_their_class(photos: Path) -> None:
    data = tg.Dataset.from_folder(photos, group_by=r"(site\d)_")
    assert grouped(data) == [["site0_0", "site0_1"], ["site1_2", "site1_3"], ["site2_4", "site2_5"]]
    assert data.grouping == r"Grouped by (site\d)_: 3 groups."
    some = tg.Dataset.from_folder(photos, group_by="site0")
    assert grouped(some)[0] == ["site0_0", "site0_1"]
    assert len(grouped(some)) == 5
    assert some.grouping.endswith("1 group; 4 photos without it stand alone.")
    sides = tg.split(data, test=0.34, seed=0)
    sites = [{Path(name).stem[:5] for name in side} for side in (sides.train, sides.test)]
    assert not sites[0] & sites[1]


def test_bursts_go_by_the_cameras_clock(photos: Path) -> None:
    data = tg.Dataset.from_folder(photos, group_by="exif:DateTimeOriginal", within="60s")
    # 50 s after 50 s: a burst goes on as long as somebody goes on
    assert grouped(data)[0] == ["site0_0", "site0_1", "site1_2"]
    assert len(grouped(data)) == 4
    assert "within 60 s: 3 groups; 1 photo without it stand alone." in data.grouping
    cameras = tg.Dataset.from_folder(photos, group_by="exif:Model")
    assert grouped(cameras)[0] == ["site0_0", "site0_1", "site1_2", "site1_3"]


def test_a_tables_groups_go_first(photos: Path) -> None:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    lines = [f"{name},{name[:4]},{'mine' if i in (0, 3) else ''}" for i, name in enumerate(names)]
    (photos / "table.csv").write_text("\n".join(["path,label,group", *lines]))
    data = tg.Dataset.from_folder(photos / "table.csv", group_by=r"site\d")
    assert sorted([Path(names[0]).stem, Path(names[3]).stem]) in grouped(data)


def test_a_table_of_absolute_paths_is_grouped_as_one_of_relative_ones(photos: Path) -> None:
    """Its photos once were taken for ones with groups of their own, and none was joined."""
    rows = [(str(path), path.parent.name) for path in sorted(photos.rglob("*.jpg"))]
    (photos / "all.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    data = tg.Dataset.from_folder(photos / "all.csv", group_by=r"(site\d)_")
    assert grouped(data) == grouped(tg.Dataset.from_folder(photos, group_by=r"(site\d)_"))


@pytest.mark.parametrize("joined_when", ["read", "trained"])
def test_photos_read_already_are_joined_as_was_said(photos: Path, tmp_path: Path, joined_when: str) -> None:
    said = {"group_by": r"(site\d)_"}
    read, trained = (said, {}) if joined_when == "read" else ({}, said)
    data = tg.Dataset.from_folder(photos, **read)
    run = tg.train(data, out=tmp_path / "run", test=0.34, backbone=TINY, policies=0, heads="ridge", **trained)
    sides = {
        (Path(row["id"]).stem.partition("_")[0], row["split"]) for row in run.read_table("predictions.csv")
    }
    assert len(sides) == 3  # no site on two sides
    assert run.config is not None
    assert run.config.data.group_by == r"(site\d)_"  # whoever reads them again joins them so, too


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 100_000), max_size=20), st.integers(1, 5000))
def test_bursts_are_chains(clock: dict[str, int], within: int) -> None:
    import datetime as dt

    start = dt.datetime(2026, 1, 1)  # noqa: DTZ001
    times = {
        name: (start + dt.timedelta(seconds=at)).strftime("%Y:%m:%d %H:%M:%S") for name, at in clock.items()
    }
    found = bursts(times, within)
    assert found.keys() == clock.keys()
    order = sorted(clock, key=lambda name: clock[name])
    for before, after in itertools.pairwise(order):
        near = clock[after] - clock[before] <= within
        assert (found[before] == found[after]) == near


@pytest.mark.parametrize(
    ("text", "expected"), [("60s", 60), ("5min", 300), ("2 h", 7200), ("1d", 86400), ("90", 90), (".5s", 0.5)]
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("by", "within", "said"),
    [
        ("(", None, "is no regular expression"),
        ("exif:DateTimeOriginl", None, "Did you mean DateTimeOriginal"),
        ("site", "60s", "goes with a time"),
        (None, "60s", "Give both"),
        ("exif:DateTimeOriginal", "soon", "expected a length of time such as 60s"),
    ],
)
def test_what_is_no_grouping_is_refused(by: str | None, within: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Grouping.of(by, within)


def test_a_grouping_that_no_photo_has_is_a_mistake(photos: Path) -> None:
    with pytest.raises(UsageError, match="no photo has a match of 'nowhere' in its path"):
        tg.Dataset.from_folder(photos, group_by="nowhere")
    with pytest.raises(UsageError, match="no photo has the EXIF tag Artist"):
        tg.Dataset.from_folder(photos, group_by="exif:Artist")
    with pytest.raises(UnknownNameError):
        tg.Dataset.from_folder(photos, group_by="exif:Nothing")


def test_the_command_takes_it_and_the_run_remembers(photos: Path, tmp_path: Path) -> None:
    told = topgraft("check", photos, "--group-by", "site[0-9]")
    assert told.returncode == 0
    assert "Grouped by site[0-9]: 3 groups." in told.stdout
    asked = ["--group-by", "site[0-9]", "--within", "60s"]
    told = topgraft("train", photos, "-o", tmp_path / "run", *asked)
    assert told.returncode == 2
    assert "goes with a time" in told.stderr
    assert not (tmp_path / "run").exists()
    from topgraft.config import Config

    config = Config.of(photos=photos, group_by="exif:DateTimeOriginal", within="60s")
    assert config.as_dict()["data"]["group_by"] == "exif:DateTimeOriginal"
    assert json.loads(json.dumps(config.as_dict()))["data"]["within"] == "60s"


@pytest.mark.parametrize("timed", [True, False])
def test_check_proposes_a_grouping_where_duplicates_follow_one_another(tmp_path: Path, timed: bool) -> None:
    for burst in range(8):
        for i in range(2):
            place = tmp_path / ("ants", "bees")[burst % 2] / f"cam{burst}-{100 + i}.jpg"
            photo(place, burst, f"2026:05:01 1{burst}:00:0{i}" if timed else "")
            if i:  # the same again, a little brighter
                with Image.open(place) as one:
                    bright = one.point(lambda level: min(255, int(level * 1.05)))
                    bright.save(place, quality=90, exif=one.info.get("exif", b""))
    data = tg.Dataset.from_folder(tmp_path)
    (said,) = [line for line in check(data).warnings if "follow one another" in line]
    assert said.startswith("Near-duplicates follow one another 8 times (first: ants/cam0-100.jpg to")
    if timed:
        assert "`--group-by exif:DateTimeOriginal --within 60s`" in said
        again = tg.Dataset.from_folder(tmp_path, group_by="exif:DateTimeOriginal", within=60)
    else:
        pattern = said.split("--group-by '")[1].split("'")[0]
        again = tg.Dataset.from_folder(tmp_path, group_by=pattern)
    assert len(grouped(again)) == 8
    assert not [line for line in check(again).warnings if "follow one another" in line]
