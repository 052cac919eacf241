"""A recipe's mistakes are all told at once, with the key they are in."""

import pytest
import tomli_w

from topgraft.config import Config
from topgraft.errors import UsageError
from topgraft.settings import Settings


def test_flags_overrule_the_file_and_none_is_not_given(tmp_path):
    (tmp_path / "r.toml").write_text('seed = 3\n[data]\ntest = 0.3\n[policies]\ncount = 4\ngrid = "gentle"\n')
    config = Config.load(tmp_path / "r.toml", seed=None, data__test=0.1, heads__folds=3)
    assert (config.seed, config.data.test, config.policies.count, config.heads.folds) == (3, 0.1, 4, 3)
    assert config.policies.grid == "gentle"
    assert (config.policies.most, config.policies.fixed) == (4, False)


@pytest.mark.parametrize(
    ("given", "count", "most", "fixed"),
    [(3, 3, 3, False), ("3", 3, 3, False), ("3!", "3!", 3, True), (0, 0, 0, False)],
)
def test_policies_are_at_most_so_many_or_exactly(given, count, most, fixed, tmp_path):
    config = Config.load(policies__count=given)
    found = config.policies
    assert (found.count, found.most, found.fixed) == (count, most, fixed)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config.as_dict()))
    assert Config.load(tmp_path / "config.toml") == config
    assert Config.load(policies__count=given, policies__worth=True).policies.fixed  # it measures them all


@pytest.mark.parametrize("wrong", [-1, "-1", "many", "3?", True, 1.5, ""])
def test_other_counts_are_refused_in_one_line(wrong):
    with pytest.raises(
        UsageError, match=r"policies\.count: expected how many policies at most, .* got "
    ) as told:
        Config.load(policies__count=wrong)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("given", "seconds"), [("90s", 90), ("5m", 300), ("5min", 300), ("1h", 3600)])
def test_a_time_is_for_backbones_that_are_tried(given, seconds):
    assert Config.load(backbone__name="auto", backbone__time=given).backbone.seconds == seconds
    assert Config.load(backbone__time=given).backbone.seconds == seconds
    with pytest.raises(UsageError, match="leave it out beside tf_efficientnet_lite0,"):
        Config.load(backbone__name="tf_efficientnet_lite0", backbone__time=given)
    with pytest.raises(UsageError, match=r"backbone\.time: expected a time as 90s, 5m or 1h, got 'soon'$"):
        Config.load(backbone__name="auto", backbone__time="soon")
    with pytest.raises(UsageError, match=r"backbone\.weights: expected a name without a NUL, got 'a\\x00b'$"):
        Config.load(backbone__weights="a\0b")
    assert Config.load() == Config()


def test_all_mistakes_at_once_and_close_names(tmp_path):
    (tmp_path / "r.toml").write_text("[data]\ntset = 0.3\ntest = 2\n[heads]\nfolds = 1\n[polices]\n")
    with pytest.raises(UsageError) as caught:
        Config.load(tmp_path / "r.toml")
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "data.tset: no such key, did you mean test?",
        "data.test:",
        "got 2",
        "heads.folds:",
        "polices: no such",
    ):
        assert part in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = true", "seed: .*got True"),
        ("seed = 1e3", r"seed: .*got 1000\.0"),
        ("[policies]\nworth = 1", "policies.worth: .*got 1"),
        ("[heads]\nfolds = 5.0", r"heads\.folds: .*got 5\.0"),
        ("[data]\ntest = 20", r"data\.test: expected a share from 0 to below 1 \(20 % is 0\.2\), got 20"),
    ],
)
def test_a_value_of_another_kind_is_not_bent(tmp_path, text, words):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        Config.load(tmp_path / "r.toml")


def test_a_section_that_is_none_is_one_line(tmp_path):
    (tmp_path / "r.toml").write_text("data = 3")
    with pytest.raises(UsageError, match="data must be a section"):
        Config.load(tmp_path / "r.toml", data__test=0.1)


@pytest.mark.parametrize(("text", "message"), [("a = = 1", "not a TOML recipe"), (None, "found no file")])
def test_no_recipe_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        Config.load(tmp_path / "r.toml")


def test_settings_come_from_flag_then_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TOPGRAFT_THREADS", "3")
    monkeypatch.setenv("TOPGRAFT_OFFLINE", "yes")
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path))
    found = Settings.load()
    assert (found.threads, found.offline, found.cache_dir) == (3, True, tmp_path)
    assert Settings.load(threads=1).threads == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("THREADS", "two", "TOPGRAFT_THREADS must be a whole number, got 'two'"),
        ("THREADS", "0", "threads must be at least 1"),
        ("OFFLINE", "maybe", "TOPGRAFT_OFFLINE must be 1 or 0"),
        ("DEVICE", "tpu", "device must be auto, cpu or cuda"),
    ],
)
def test_settings_of_the_wrong_form_name_the_variable(monkeypatch, name, value, message):
    monkeypatch.setenv(f"TOPGRAFT_{name}", value)
    with pytest.raises(UsageError, match=message):
        Settings.load()


@pytest.mark.parametrize(
    "text", ["seed = " + "9" * 5000, "seed = " + "9" * 30, "a = " + "[" * 20_000, "\xff"]
)
def test_a_recipe_that_no_machine_can_take_is_one_short_line(tmp_path, text):
    (tmp_path / "r.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"r\.toml: ") as caught:
        Config.load(tmp_path / "r.toml")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
