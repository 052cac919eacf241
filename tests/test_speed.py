"""What is known of a processor, and when INT8 is worth trying."""

import logging

import pytest

from topgraft._try_int8 import MANY, may_pay
from topgraft.importers.load import load_backbone
from topgraft.settings import Settings
from topgraft.speed import adds_bytes

INTEL = "processor\t: 0\nflags\t\t: fpu vme avx2 avx512f avx512_vnni\n"
OLDER = "processor\t: 0\nflags\t\t: fpu vme avx2\nbugs\t\t: avx_vnni\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(("said", "expected"), [(INTEL, True), (OLDER, False), (ARM, True), ("", None)])
def test_linux_says_whether_a_processor_adds_bytes(said, expected, tmp_path):
    (tmp_path / "cpuinfo").write_text(said)
    assert adds_bytes(tmp_path / "cpuinfo") is expected
    assert adds_bytes(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("rows", "adds", "nncf", "said"),
    [
        (MANY - 1, True, True, "19,999 views at most are soon embedded"),
        (MANY, False, True, "no VNNI"),
        (MANY, True, False, r"pip install 'topgraft[int8]'"),
        (MANY, True, True, ""),
        (MANY, None, True, ""),
    ],
)
def test_int8_is_tried_where_there_is_much_to_gain(rows, adds, nncf, said, monkeypatch, caplog):
    monkeypatch.setattr("topgraft._try_int8.adds_bytes", lambda: adds)
    monkeypatch.setattr("topgraft._try_int8.find_spec", lambda _: object() if nncf else None)
    with caplog.at_level(logging.INFO, "topgraft"):
        assert may_pay(load_backbone(), rows, Settings.load()) is (said == "")
        assert not may_pay(load_backbone(), rows, Settings.load(device="cuda"))
    assert said in caplog.text
    assert "INT8 is for processors" in caplog.text
