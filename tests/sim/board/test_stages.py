"""A build that is killed goes on where it was."""

import os
import signal
import subprocess
import sys

import pytest

from cbnn.sim.board.stages import Stages, unfinished
from cbnn.sim.synth.synthesis import SynthesisError

TOOLS = {
    "yosys": """echo yosys >> "$CALLS"; cat *.v > netlist.json""",
    "nextpnr-ice40": """
while [ $# -gt 0 ]; do
    case $1 in --asc) placed=$2 ;; --report) report=$2 ;; --seed) seed=$2 ;; esac
    shift
done
echo "seed $seed" >> "$CALLS"
if [ "$seed" = "$KILLED_AT" ]; then kill -9 $PPID; sleep 60; fi
echo placed > "$placed"
echo "{\\"fmax\\": {\\"clk\\": {\\"achieved\\": $((40 + seed))}}}" > "$report"
printf 'Info: Device utilisation:\\nInfo: \\t         ICESTORM_LC:    2000/   5280    37%%\\n'""",
    "icepack": """cp "$1" "$2" """,
}


@pytest.fixture
def board(tmp_path):
    """Give a function that runs `cbnn board` with tools that do next to nothing, and returns what was called."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f'#!/bin/sh\nif [ "$1" = -V ]; then echo "version $VERSION"; exit 0; fi\n{script}\n')
        (tools / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(*words, killed_at="", version="1"):
        calls.write_text("")
        environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls),
                                    "KILLED_AT": str(killed_at), "VERSION": version}
        code = subprocess.run(
            [sys.executable, "-c", "from cbnn.sim.command.main import main; main()", "board", "digits-1", "--board",
             "icebreaker", "--folding", "(1,3)(4,3)(2,16)(1,4)(1,2)", "--seeds", "3", "--out", "out", *words],
            cwd=tmp_path, env=environment, capture_output=True, timeout=60).returncode
        assert code == (-signal.SIGKILL if killed_at else 0)
        return calls.read_text().splitlines()

    return run


def there_are(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out"))


@pytest.mark.slow(10)
def test_a_killed_build_goes_on_where_it_was(tmp_path, board):
    assert board(killed_at=2) == ["yosys", "seed 1", "seed 2"]
    assert there_are(tmp_path) == ["out.unfinished"]
    assert board(killed_at=3) == ["seed 2", "seed 3"]
    assert board() == ["seed 3"]
    assert there_are(tmp_path) == ["out"]
    assert "2000/   5280" in (tmp_path / "out" / "3.log").read_text()


@pytest.mark.slow(10)
def test_another_build_begins_anew(tmp_path, board):
    board(killed_at=2)
    assert board("--baud", "9600", killed_at=2) == ["yosys", "seed 1", "seed 2"]
    assert board(version="2") == ["yosys", "seed 1", "seed 2", "seed 3"]
    assert there_are(tmp_path) == ["out"]


def test_what_is_kept_is_by_what_is_read(tmp_path, monkeypatch):
    ran = []

    def run_tool(name, words, folder, log):
        ran.append((name, *words))
        (folder / "result").write_text(f"of {(folder / 'source').read_text()}")
        (folder / log).write_text("said")
        return "version"

    monkeypatch.setattr("cbnn.sim.board.stages.run_tool", run_tool)
    def stopped():
        with unfinished(tmp_path / "out") as stages:
            stages.run("tool", ["--fast"], fresh, ["source"], ["result"], "log")
            raise KeyboardInterrupt

    work, fresh = tmp_path / "out.unfinished", tmp_path / "fresh"
    fresh.mkdir()
    for source, n_runs in (("one", 1), ("two", 2), ("one", 2)):
        (fresh / "source").write_text(source)
        with pytest.raises(KeyboardInterrupt):
            stopped()
        assert len([call for call in ran if call == ("tool", "--fast")]) == n_runs
        assert (fresh / "result").read_text() == f"of {source}"
    with pytest.raises(SynthesisError), unfinished(tmp_path / "out"):
        raise SynthesisError("it does not fit")
    assert not work.exists()
    work.mkdir()
    (work / "mine").write_text("x")
    with pytest.raises(ValueError, match="holds mine, which is not as cbnn wrote it"):
        Stages(work)
    assert (work / "mine").exists()
