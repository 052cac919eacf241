"""What the package and the command line promise before any photo is read."""

import json
import logging
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

import topgraft as tg
from commands import topgraft
from photos import paint_folder
from topgraft import errors, show
from topgraft.cli import _with_command, app
from topgraft.show import listen, print_json


def run(*words, **options):
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "topgraft.cli", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def modules_after(code):
    text = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name.split(".")[0] for name in text.split()}


def test_importing_the_package_is_light():
    heavy = {"torch", "openvino", "sklearn", "matplotlib", "cv2", "zarr", "onnx", "numpy", "PIL", "pydantic"}
    assert not modules_after("import topgraft") & heavy


def test_help_imports_nothing_heavy():
    code = "import sys, contextlib; from topgraft.cli import main; sys.argv = ['topgraft', '--help']\n"
    code += "with contextlib.suppress(SystemExit): main()"
    assert not modules_after(code) & {"torch", "openvino", "sklearn", "cv2", "zarr", "onnx", "numpy", "PIL"}


def test_a_command_is_the_same_whether_it_is_read_alone_or_among_all():
    def said(one, *words):
        return CliRunner().invoke(one, words, prog_name="topgraft").output

    for name in ("predict", "train"):
        alone = _with_command(name)
        assert len(alone.registered_commands) == 1
        assert said(alone, name, "--help") == said(app, name, "--help")
        assert said(alone, name) == said(app, name)
        assert said(alone, name, "--no-such-option") == said(app, name, "--no-such-option")
    for word in ("", "--help", "store", "predicts"):
        assert _with_command(word) is app


def test_the_first_answer_of_train_waits_for_no_report():
    assert not modules_after("import topgraft.recipe") & {"jinja2", "nncf", "sklearn", "torch", "rich"}


def test_no_description_is_cut_off_in_a_window_of_eighty():
    line = [sys.executable, "-m", "topgraft.cli", "--help"]
    done = subprocess.run(
        line, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    commands = done.stdout.split("Commands:")[1].strip().splitlines()
    assert len(commands) > 10
    assert not [line for line in commands if "..." in line]


def test_every_public_name_is_there_and_sorted():
    assert tg.__all__ == sorted(tg.__all__)
    for name in tg.__all__:
        assert getattr(tg, name).__doc__, name
    assert set(tg.__all__) <= set(dir(tg))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tg.nothing


def test_the_version_is_the_installed_one():
    assert tg.__version__ == metadata.version("topgraft")
    line = [sys.executable, "-m", "topgraft.cli", "--version"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == f"{tg.__version__}\n"


def test_every_error_has_its_exit_code_and_builtin():
    tree = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.TopgraftError)
    ]
    assert {one.exit_code for one in tree} == {1, 2, 3}
    for one in tree:
        if one is not errors.TopgraftError:
            assert issubclass(one, ValueError | OSError | LookupError | ImportError), one


def test_unknown_names_list_the_close_ones():
    assert "Did you mean logistic?" in str(errors.UnknownNameError("head", "logstic", ["logistic", "mean"]))
    assert "There are: logistic, mean." in str(errors.UnknownNameError("head", "zzz", ["mean", "logistic"]))


def test_a_missing_extra_prints_the_install_line():
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'topgraft\[ray\]'") as caught:
        errors.need("no_such_module_at_all", "ray", "--workers ray")
    assert caught.value.exit_code == 3


def test_no_address_is_named_where_the_server_is_missing():
    code = "import sys; sys.modules['uvicorn'] = None; sys.argv = ['topgraft', 'serve', 'run']\n"
    code += "from topgraft.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "topgraft: topgraft serve needs the `serve` extra: pip install 'topgraft[serve]'\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["check", "nowhere"], 1, "expected a folder of photos, found nothing"),
        (["train", "nowhere", "-o", "x"], 1, "expected a folder of photos, found nothing"),
        (["train", ".", "-o", "x", "--folds", "1"], 2, "heads.folds"),
        (["train", ".", "--config", "none.toml"], 2, "found no file"),
        (["predict", "nowhere", "a.jpg"], 1, "of a predictor, found no such folder."),
        (["predict", "begun", "a.jpg"], 1, "found one that is not finished. Give --resume"),
        (["evaluate", "begun", "."], 1, "found one that is not finished. Give --resume"),
        (["info", "begun"], 1, "Did you mean begun/features.zarr?"),
        (["train", ".", "-o", "x", "--test", "20"], 2, "below 1 (20 % is 0.2), got 20.0"),
        (["train", ".", "-o", "x", "--heads", "linaer"], 2, "Did you mean linear"),
        (["train", ".", "-o", "x", "--heads", ""], 2, "no head is named ''"),
        (["embed", ".", "--seed", "-1"], 2, "--seed"),
        (["chek", "."], 2, "No such command"),
        (["train", ".", "--polices", "3"], 2, "No such option"),
    ],
)
def test_a_users_mistake_is_a_line_and_a_code(tmp_path, words, code, message):
    (tmp_path / "begun" / "features.zarr").mkdir(parents=True)
    for name in (".topgraft-run", "features.zarr/zarr.json"):
        (tmp_path / "begun" / name).touch()
    done = topgraft(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if code == 1:
        assert done.stderr.count("\n") == 1


def test_ctrl_c_says_how_to_go_on(tmp_path):
    paint_folder(tmp_path / "photos", cat=20, dog=20)
    command = [sys.executable, "-c", PRESS, "embed", "photos", "-o", "s.zarr"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "topgraft: Stopped. What is computed is kept: run the same command again.\n"
    command[3:] = ["train", "photos", "-o", "r"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].endswith("run the same command again with -o and --resume.")


def test_a_log_file_hears_now_and_then_how_far_things_are(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])
    with show.progress() as tell:
        for done in (0, 5, 6, 10):
            tell("embedding", done, 10)
            now[0] += 20
        for done in (7, 8, 9, 10):  # goes on where an earlier run was
            tell("epochs", done, 10)
            now[0] += 60
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 6 of 10, about 27 s left",
        "epochs: 7 of 10",
        "epochs: 8 of 10, about 2 min left",
        "epochs: 9 of 10, about 60 s left",
    ]


PRESS = """
import os, signal, sys
from topgraft.cli import main
once = [signal.SIGINT]
def press(name, args):
    if name == "open" and str(args[0]).endswith("7.jpg") and once:
        os.kill(os.getpid(), once.pop())
sys.addaudithook(press)
main()
"""


def test_v_shows_the_traceback(tmp_path):
    assert "Traceback" in run("check", "nowhere", "-v", cwd=tmp_path).stderr


def test_check_prints_json_and_fails_on_what_cannot_be_trained_on(tmp_path):
    paint_folder(tmp_path / "good", cat=5, dog=5)
    paint_folder(tmp_path / "poor", cat=5)
    done = topgraft("check", tmp_path / "good", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["classes"] == {"cat": 5, "dog": 5}
    poor = topgraft("check", tmp_path / "poor")
    assert poor.returncode == 1
    assert "at least 2 classes" in poor.stderr
    assert "Nothing to complain about" not in poor.stdout


def test_check_says_what_it_fails_for():
    assert "exit code 1, for fewer than two classes" in " ".join(topgraft("check", "--help").stdout.split())


def verbs():
    import typer.main

    from topgraft.cli import app

    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {below}": verb for below, verb in inner.items()} if inner else {name: command}
    return found


def test_every_verb_has_a_public_function_of_its_name():
    from topgraft.cli import VERBS, public_function

    assert set(VERBS) == set(verbs())
    for verb, public in VERBS.items():
        own, name = verb.split()[-1], public_function(verb).__name__
        assert public.split(".")[0] in [*tg.__all__, "serve"]
        # Where a folder of the package has the name, a function cannot have it too.
        taken = (Path(tg.__file__).parent / own).is_dir()
        assert name == own or (taken and own in name.split("_")), verb


def test_help_names_what_the_registries_hold_and_the_defaults():
    from topgraft.config import OPTIONS, Config
    from topgraft.heads import HEADS
    from topgraft.policies.grid import GRIDS

    def helped(*words):
        return " ".join(topgraft(*words, "--help").stdout.split())

    text = helped("train")
    assert ", ".join(GRIDS) in text
    assert all(name in text for name in HEADS)
    for option, default in ((name, Config().option(name)) for name in OPTIONS):
        if default not in (None, False, "") and option != "val":
            shown = ",".join(default) if isinstance(default, tuple) else default
            assert re.search(rf"--{option.replace('_', '-')} [^[]*\[default: {shown}\]", text), option
    assert "[default: 2]" in helped("heads")  # how often its function deals the folds
    assert "[default: 3]" in helped("worth")


def test_verbs_share_their_options():
    """An option of one name says the same everywhere, but where what it does differs."""
    own = {
        "out",
        "compare",
        "photos",
        "backbone",
        "seed",
        "test",
        "depths",
        "maps",
        "each",
        "policies",
        "split",
        "precision",
        "workers",
        "folds",
        "store",
    }
    said = {}
    for command in verbs().values():
        for option in command.params:
            if hasattr(option, "help") and option.param_type_name == "option" and option.name not in own:
                said.setdefault(option.name, set()).add(option.help)
    assert {name for name, texts in said.items() if len(texts) > 1} == set()


EARLY = """
import os, signal, sys
def press(name, args):
    if name == "import" and args[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(press)
import runpy
sys.argv = ["topgraft", "--help"]
runpy.run_module("topgraft", run_name="__main__")
"""


def test_ctrl_c_is_heard_before_anything_is_imported():
    done = subprocess.run([sys.executable, "-c", EARLY], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "topgraft: Stopped.\n")


def test_names_that_a_terminal_cannot_show_are_codes(tmp_path):
    paint_folder(tmp_path / "photos", **{"\u5bff\u53f8": 5, "a\u202eb\x1b[31m": 5})
    done = subprocess.run(
        [sys.executable, "-m", "topgraft", "check", tmp_path / "photos"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"10 photos: a\\u202eb\\x1b[31m 5, \\u5bff\\u53f8 5\n")


def test_what_a_stage_says_is_one_line(caplog, capsys):
    listen(verbose=False)
    log = logging.getLogger("topgraft")
    try:
        log.info("%s", "a\nb\u202e")
    finally:
        log.removeHandler(log.handlers[-1])
    assert capsys.readouterr().err == "a\\nb\\u202e\n"


def test_json_has_no_nan(capsys):
    print_json(
        {"value": float("nan"), "all": [float("inf"), 1.5, {"low": -float("inf")}], "n": 3, "to": None}
    )
    said = capsys.readouterr().out
    assert json.loads(said, parse_constant=pytest.fail) == {
        "value": None,
        "all": [None, 1.5, {"low": None}],
        "n": 3,
        "to": None,
    }
