from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.errors import UnknownNameError, UsageError
from topgraft.policies.grid import GRIDS, Grid, draw
from topgraft.policies.policy import IDENTITY, Policy

GRID = GRIDS["grid288"]


def test_grid288_has_its_cells_in_its_order():
    expected = [
        Policy(
            rotation=rotation,
            shift_x=shift,
            shift_y=shift,
            shear=shear,
            zoom=(round(1 - zoom, 1), round(1 + zoom, 1)),
            hflip=flip == "h",
            vflip=flip == "v",
            fill=fill,
        )
        for rotation in (0, 60, 120)
        for shift, shear in ((0, 0), (0.3, 17.19), (0.6, 34.38))
        for zoom in (0, 0.3, 0.6, 0.9)
        for flip in "hv"
        for fill in ("constant", "nearest", "reflect", "wrap")
    ]
    assert len(GRID) == 288
    assert list(GRID) == expected
    assert [GRID[i] for i in range(288)] == expected
    assert GRID[-1] == expected[287]
    assert GRID[5:8] == tuple(expected[5:8])
    with pytest.raises(IndexError):
        GRID[288]


def test_eight_cells_have_no_geometry_and_are_two_policies():
    still = [policy for policy in GRID if not policy.moves]
    assert len(still) == 8
    assert set(still) == {Policy(hflip=True), Policy(vflip=True)}
    assert len(GRID.distinct()) == 282 == len(set(GRID))


def test_levels_name_what_a_cell_is_made_of():
    assert GRID.levels(287) == {
        "rotation": "rotate(120)",
        "shift": "shift(0.6) | shear(34.38)",
        "zoom": "zoom(0.1,1.9)",
        "channel_shift": "none",
        "flip": "vflip",
        "fill": "fill(wrap)",
    }
    assert list(GRID.levels(0)) == ["rotation", "shift", "zoom", "channel_shift", "flip", "fill"]


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_presets_can_be_named_and_hold_at_least_thirty_policies(name):
    table = Grid.load(name)
    assert table.name == name
    assert len(table) == len(list(table))
    assert len(table.distinct()) >= 30
    assert IDENTITY not in table.distinct()


def test_presets_are_what_their_names_say():
    assert max(policy.rotation for policy in GRIDS["gentle"]) <= 20
    assert not any(policy.vflip for name in ("gentle", "photo") for policy in GRIDS[name])
    assert any(policy.saturation != (1, 1) and policy.erase for policy in GRIDS["photo"])
    assert all(policy.rotation == 180 for policy in GRIDS["any-angle"])


@given(st.integers(0, 288), st.integers(0, 50))
def test_a_draw_without_replacement_repeats_no_cell_and_distinct_ones_come_first(n, seed):
    drawn = draw(n, seed)
    assert len(drawn) == n
    assert len(set(drawn)) == min(n, 282)
    assert not Counter(drawn) - Counter(GRID)
    assert drawn == draw(n, seed)


def test_a_larger_draw_begins_with_the_smaller_one():
    assert draw(288, 3)[:16] == draw(16, 3)
    assert draw(500, 3, replace=True)[:16] == draw(16, 3, replace=True)


def test_seeds_differ():
    assert len({draw(4, seed) for seed in range(20)}) == 20


def test_every_cell_is_drawn_as_often_as_any_other():
    first = Counter(draw(1, seed, "any-angle")[0] for seed in range(1800))
    assert set(first) == set(GRIDS["any-angle"])
    assert sum((n - 50) ** 2 / 50 for n in first.values()) < 66.6  # chi-squared, 35 degrees, p = 0.001


def test_asking_for_more_than_there_is_says_how_many_there_are():
    with pytest.raises(
        UsageError, match=r"grid288 has 288 policies \(282 of them distinct\), 289 were asked"
    ):
        draw(289)
    assert len(draw(289, replace=True)) == 289
    with pytest.raises(UsageError, match="0 or more, got -1"):
        draw(-1)


def test_unknown_grids_list_the_close_ones():
    with pytest.raises(UnknownNameError, match=r"no grid is named 'gentel'. Did you mean gentle"):
        draw(3, grid="gentel")


def test_own_grids_come_from_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[axes]\nturn = ["none", "rotate(30)"]\n'
        'colour = ["saturation(0.5)", "brightness(0.2) | contrast(0.1)", "none"]\n'
    )
    table = Grid.load(path)
    assert table == Grid(
        "mine",
        (
            ("turn", ("none", "rotate(30)")),
            ("colour", ("saturation(0.5)", "brightness(0.2) | contrast(0.1)", "none")),
        ),
    )
    assert [str(policy) for policy in table][:3] == [
        "saturation(0.5,1.5)",
        "brightness(0.8,1.2) | contrast(0.9,1.1)",
        "identity",
    ]
    assert len(draw(6, grid=str(path))) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes = 3", "expected a table [axes]"),
        ("[axes]", "expected a table [axes]"),
        ("[axes]\na = 3", "axis a must be a list of policy strings, got 3"),
        ("[axes]\na = [1]", "axis a must be a list of policy strings"),
        ("[axes]\na = []", "axis a has no levels"),
        ("[axes]\na = ['rotaton(3)']", "axis a: no policy term is named 'rotaton'"),
        (
            "[axes]\na = ['rotate(3)']\nb = ['hflip', 'rotate(4)']",
            "the axes a and b both set rotation. Leave",
        ),
        (
            "[axes]\na = ['none', 'shift(0.1)', 'hflip']\nb = ['none', 'shift(0.2)', 'vflip']",
            "the axes a and b both set shift_x and shift_y.",
        ),
        ("[axes", "no grid can be read here"),
    ],
)
def test_bad_grid_files_are_refused_with_what_was_expected(tmp_path, text, said):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Grid.load(path)
    assert said in str(caught.value)


def test_a_grid_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no grid can be read here"):
        Grid.load(tmp_path / "none.toml")
