# SPDX-License-Identifier: Apache-2.0
"""The comparison with vLLM's CPU build: its checkpoint, its arithmetic, its watch over the idle."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.page import PAGE
from benchmarks.peers import __main__ as command
from benchmarks.peers import overhead, speed
from benchmarks.peers.checkpoint import ready_checkpoint
from benchmarks.peers.engine import Engine, Turns
from benchmarks.peers.environment import requirements
from benchmarks.peers.processes import cpu_seconds, memory, run_logged, stop
from benchmarks.peers.report import Figure, Line, Pair, Panel, Ratio, bar_panel, draw, table
from benchmarks.peers.setting import Machine, Setting
from benchmarks.peers.sides import OPTIONS, Side, command_line_options
from benchmarks.shapes import QWEN3_0_6B

SMALL = QWEN3_0_6B | {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 3000},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
}
SPIN = "while True: pass"
SLEEP = "import time; time.sleep(60)"
# A process whose child does the work.
NESTED = "import subprocess, sys; subprocess.run([sys.executable, '-c', {!r}])"
HOLD_80_MB = "kept = b'x' * 80_000_000; import time; time.sleep(60)"

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_child() -> Iterator[Start]:
    """Starts a Python program as the leader of a session; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
        started.append(child)
        return child

    yield start
    for child in started:
        stop(child, patience=0.2)


@pytest.fixture(scope="module")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready_checkpoint(tmp_path_factory.mktemp("checkpoint"), SMALL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_transformers_loads_the_checkpoint(small_checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(small_checkpoint, output_loading_info=True)
    assert not any(info.values()), info
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_every_token_is_text_of_its_own(small_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_checkpoint)
    assert len(tokenizer) == SMALL["vocab_size"]
    # Beyond the special tokens and the bytes, of which not all are text.
    words = [tokenizer.decode([number]) for number in range(3 + 256, SMALL["vocab_size"])]
    assert len(set(words)) == len(words)
    assert all(word.isalpha() for word in words)


def test_a_written_checkpoint_is_kept_and_a_partial_one_is_not(tmp_path: Path) -> None:
    weights = ready_checkpoint(tmp_path, SMALL) / "model.safetensors"
    first = weights.stat().st_mtime_ns
    ready_checkpoint(tmp_path, SMALL)
    assert weights.stat().st_mtime_ns == first
    weights.rename(weights.with_suffix(".partial"))
    ready_checkpoint(tmp_path, SMALL)
    assert weights.is_file()


def test_requirements_are_those_of_everybody(tmp_path: Path) -> None:
    wheel = tmp_path / "x-1.whl"
    required = ("torch==2.13.0", "torchvision", "numpy<3", 'pandas; extra == "bench"', "zmq")
    lines = ["Metadata-Version: 2.1", "Name: x", *(f"Requires-Dist: {r}" for r in required), "", ""]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x-1.dist-info/METADATA", "\n".join([*lines, "Requires-Dist: prose"]))
    assert requirements(wheel) == ["numpy<3", "zmq"]


def test_cpu_time_includes_descendants(start_child: Start) -> None:
    busy, idle = start_child(NESTED.format(SPIN)), start_child(SLEEP)
    wait_until(lambda: cpu_seconds(busy.pid) > 0.5)
    assert cpu_seconds(idle.pid) < 0.3


def test_memory_includes_descendants(start_child: Start) -> None:
    child = start_child(NESTED.format(HOLD_80_MB))
    wait_until(lambda: memory(child.pid).pss > 80_000_000)
    used = memory(child.pid)
    assert used.pss < used.peak_rss < 160_000_000


def test_stop_leaves_nobody(start_child: Start) -> None:
    child = start_child(NESTED.format(SLEEP))
    wait_until(lambda: len(psutil.Process(child.pid).children()) == 1)
    (grandchild,) = psutil.Process(child.pid).children()
    stop(child, patience=0.2)
    assert child.returncode == -signal.SIGTERM
    wait_until(lambda: not grandchild.is_running() or grandchild.status() == "zombie")


def test_a_failed_command_shows_its_log(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('out'); raise SystemExit('the cause')"]
    with pytest.raises(RuntimeError, match=r"failed \(1\):\nout\nthe cause"):
        run_logged(program, {}, tmp_path, tmp_path / "log")
    program[2] = "print('out')"
    assert run_logged(program, {}, tmp_path, tmp_path / "log") == "out\n"


class Sleeper(Engine):
    """An engine whose work is to wait, beside a process that stands for its workers."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def generate(self, batch: int, prompt: int, new: int) -> float:
        time.sleep(0.5)
        return 0.5


def test_an_engine_that_computes_while_it_waits_is_noticed(start_child: Start) -> None:
    measured, spinning = Sleeper(start_child(SLEEP)), Sleeper(start_child(SPIN))
    wait_until(lambda: cpu_seconds(measured._process.pid) < cpu_seconds(spinning._process.pid))
    turns = Turns([measured, spinning])
    turns.seconds(measured, 1, 1, 1)
    with pytest.raises(RuntimeError, match="waiting side used"):
        turns.watch.require_idle()
    quiet = Turns([measured, spinning])
    quiet.seconds(spinning, 1, 1, 1)
    quiet.watch.require_idle()


def test_ratios_are_medians_within_rounds() -> None:
    ours, peer = (1.0, 2.0, 4.0), (2.0, 6.0, 4.0)
    assert Pair("x", "ms", ours, peer, Ratio.SPEEDUP).compared() == 2.0
    assert Pair("x", "ms", ours, peer, Ratio.SHARE).compared() == 0.5
    text = table([Pair("x", "ms", ours, peer, Ratio.SHARE, "at most 1", "note")])
    row = "| x | ms | 2 | 1 | 4 | 2 | Q/P = 0.50, goal at most 1 | note |"
    assert text.splitlines()[2] == row
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_options_of_engine_and_server_agree() -> None:
    words = command_line_options()
    assert words[words.index("--max-num-seqs") + 1] == str(OPTIONS["max_num_seqs"])
    assert "--no-enable-prefix-caching" in words


def test_settings_of_the_caller_do_not_reach_a_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_MS_CPU_ISA", "generic")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = Side("a", Path(sys.executable), "x", {"OWN": "1"}).environment(tmp_path)
    assert "VLLM_MS_CPU_ISA" not in seen
    assert "OMP_NUM_THREADS" not in seen
    assert seen["OWN"] == "1"
    assert Path(seen["VLLM_CACHE_ROOT"]).is_relative_to(tmp_path)


def test_the_page_has_a_place_for_each_part(tmp_path: Path) -> None:
    command.require_sections(PAGE, set(command.PARTS))
    page = tmp_path / "page.md"
    page.write_text("<!-- peers-decode: begin -->")
    with pytest.raises(SystemExit, match="peers-serve"):
        command.require_sections(page, {"decode", "serve"})


def test_two_runs_do_not_measure_each_other(tmp_path: Path) -> None:
    with (
        command.alone(tmp_path),
        pytest.raises(SystemExit, match="Another run"),
        command.alone(tmp_path),
    ):
        pass
    with command.alone(tmp_path):
        pass


def test_options_are_checked() -> None:
    args = command.parse_arguments(["--only", "decode,serve", "--rates", "0.5,inf"])
    assert args.only == {"decode", "serve"}
    assert args.rates == (0.5, float("inf"))
    for function, text in (
        *((command.part_names, "speed"), (command.positive, "0"), (command.rates, "-1")),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            function(text)


def test_parts_that_share_engines_are_measured_together(tmp_path: Path) -> None:
    setting = own_setting(tmp_path, tmp_path)
    args = command.parse_arguments(["--only", "prefill,overhead,decode"])
    assert [parts for parts, _ in command.groups(setting, args)] == [
        {"decode", "prefill"},
        {"overhead"},
    ]


PLOTTING = command.BUILD / "venv" / "bin" / "python"
INSTALLED = (command.BUILD / "venv" / ".stamp").is_file()


@pytest.mark.skipif(not INSTALLED, reason="make bench-peers has not been run here")
def test_figures_are_drawn(tmp_path: Path) -> None:
    pair = Pair("batch 1", "ms", (1.0, 2.0), (2.0, 3.0), Ratio.SPEEDUP)
    bars = bar_panel("Decode", [pair], ("one", "other"))
    lines = Panel("Rate", "ms", "rate", lines=(Line("one", (1.0, 2.0), (3.0, 4.0)),))
    draw([Figure("both", "text", (bars, lines))], tmp_path, PLOTTING)
    text = (tmp_path / "both.svg").read_text()
    assert all(word in text for word in ("Decode", "Rate", "other", "batch 1"))


def own_setting(build: Path, checkpoint: Path) -> Setting:
    """Ours on both sides."""
    settings = {"VLLM_MS_NUM_THREADS": "1"}
    one, other = (
        Side(name, Path(sys.executable), "vllm_mindspore.cli.main", settings)
        for name in ("one", "other")
    )
    return Setting((one, other), checkpoint, build, Machine("some", "generic", 1, 1e9))


@pytest.mark.full
def test_two_engines_take_turns(tmp_path: Path, small_checkpoint: Path) -> None:
    setting = own_setting(tmp_path, small_checkpoint)
    values, idle_share = speed.alternate(setting, {"prefill": speed.prefill_ms}, rounds=2)
    assert [len(side) for side in values["prefill"].values()] == [2, 2]
    assert 0 <= idle_share < 1


@pytest.mark.full
def test_the_parts_of_a_step_are_the_step(tmp_path: Path, small_checkpoint: Path) -> None:
    setting = own_setting(tmp_path, small_checkpoint)
    part = overhead.measure(setting, {"overhead"}, rounds=1)["overhead"]
    rows = {row.split(" | ")[0].strip("| "): row for row in part.text.splitlines()[2:]}
    first = {name: float(rows[name].split(" | ")[1]) for name in (*overhead.PARTS, overhead.WHOLE)}
    assert all(value > 0 for value in first.values()), json.dumps(first)
    parts = sum(first[name] for name in overhead.PARTS)
    assert parts == pytest.approx(first[overhead.WHOLE], abs=0.05)
