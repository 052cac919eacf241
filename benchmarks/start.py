"""From a shell: how soon `predict` answers for one photo, and `train` says its first number.

    python benchmarks/start.py --photos PHOTOS --run RUN [--rounds 5] [--against SRC]

PHOTOS is a folder of photos with a folder a class, RUN a finished run. Every call is a process of its own;
`train` is ended as soon as its first number is said, once with an empty cache (photos are looked at, the
backbone's graph is written) and once with the one that this left. With `--against` the same is done with
another `src/` in turn, so that each round gives one ratio of each pair. Files are compiled to bytecode
before, as pip does.

Of each: seconds by the clock, seconds of processor of the process, and how much processor others had
meanwhile, without which the clock says little. The last line is one JSON with figures, goals and whether they
are met.
"""

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOALS = {"predict": 1.2, "train, empty cache": 6.0, "train, later": 6.0}
SAID = "first answer"
"""How the line begins that has the first number."""


def busy() -> float:
    """Return the seconds of processor that the whole machine has used."""
    spent = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(int(spent[i]) for i in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


def used(process: int) -> float:
    """Return the seconds of processor that a process has used."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def timed(source: Path, cache: Path, words: list[str], until: str = "") -> dict[str, Any]:
    """Run a command, to its end or until a line of stderr begins so."""
    environment = os.environ | {"PYTHONPATH": str(source), "TOPGRAFT_CACHE_DIR": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "topgraft", *words]
    before, begun = busy(), time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stdout is not None
    line = ""
    if until:
        for line in process.stderr:
            if line.startswith(until):
                break
        else:
            raise SystemExit(f"topgraft {words[0]} ended without saying {until!r}")
        clock, processor = time.perf_counter() - begun, used(process.pid)
        others = busy() - before - processor
        process.terminate()
        process.communicate()
        line = line[line.index(": ") + 2 :].strip()
    else:
        line = process.stdout.read().strip()
        _, status, usage = os.wait4(process.pid, 0)
        clock, processor = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
        others = busy() - before - processor
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(process.stderr.read())
    return {"clock s": clock, "processor s": processor, "others s": others, "said": line}


def round_of(source: Path, photos: Path, run: Path) -> dict[str, dict[str, Any]]:
    """Do each once."""
    photo = str(min(photos.rglob("*.jpg")))
    with tempfile.TemporaryDirectory() as work:
        cache = Path(work, "cache")
        found = {"predict": timed(source, cache, ["predict", str(run), photo])}
        for name in ("train, empty cache", "train, later"):
            found[name] = timed(source, cache, ["train", str(photos), "-o", f"{work}/run"], until=SAID)
            shutil.rmtree(f"{work}/run", ignore_errors=True)
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another src/ to compare with")
    given = parser.parse_args()
    sources = {"now": Path(__file__).parent.parent / "src"}
    if given.against:
        sources["against"] = given.against
    for source in sources.values():
        compileall.compile_dir(source, quiet=1)
    rounds: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in sources}
    for turn in range(given.rounds):
        for name in list(sources)[:: -1 if turn % 2 else 1]:
            rounds[name].append(round_of(sources[name], given.photos, given.run))
            shown = {what: round(one["clock s"], 2) for what, one in rounds[name][-1].items()}
            print(name, shown, flush=True)
    figures = {
        name: {
            what: {key: spread([one[what][key] for one in every]) for key in every[0][what] if key != "said"}
            | {"said": sorted({one[what]["said"] for one in every})}
            for what in GOALS
        }
        for name, every in rounds.items()
    }
    ratios = {
        what: {
            key: spread([a[what][key] / b[what][key] for a, b in zip(*rounds.values(), strict=True)])
            for key in ("clock s", "processor s")
        }
        for what in (GOALS if given.against else ())
    }
    met = {what: figures["now"][what]["clock s"]["median"] <= goal for what, goal in GOALS.items()}
    found = {
        "figures": figures,
        "now to against": ratios,
        "goals": GOALS,
        "met": met,
        "ok": all(met.values()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
