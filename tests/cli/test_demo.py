# SPDX-License-Identifier: Apache-2.0
"""The demo: a real server, real requests, its output, its failures."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from vllm_mindspore.cli import demo, main


def test_prints_answers_and_speed(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["demo", "--model", str(tiny_model), "--max-tokens", "24"]) == 0
    output = capfd.readouterr().out
    assert re.search(r"Ready after \d+\.\d s at http://127\.0\.0\.1:\d+", output)
    assert "Prompt: Once upon a time" in output
    answers = re.findall(r"Generated text: (.*)", output)
    assert len(answers) == 2
    assert all(len(answer) > 20 for answer in answers)
    assert len(re.findall(r"\d+ tokens in \d+\.\d\d s: \d+\.\d tokens/s", output)) == 2
    assert output.rstrip().endswith("Stopped.")


def test_failing_server_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main.main(["demo", "--model", str(tmp_path)]) == 1
    assert "The server ended while starting." in capfd.readouterr().err


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGHUP], ids=lambda item: item.name)
def test_signal_stops_the_server(tiny_model: Path, received: signal.Signals) -> None:
    command = [sys.executable, "-m", "vllm_mindspore.cli.main", "demo", "--model", str(tiny_model)]
    # Under nohup these tests ignore SIGHUP, and would hand that down.
    heeded = partial(signal.signal, received, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heeded) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting for /health" in line:  # the server runs; it is not ready
                break
        servers = psutil.Process(process.pid).children(recursive=True)
        assert any("serve" in server.cmdline() for server in servers)
        process.send_signal(received)
        assert process.wait(60) == 128 + received
    _, left = psutil.wait_procs(servers, timeout=5)
    assert not [server for server in left if server.status() != psutil.STATUS_ZOMBIE]


def test_missing_bundled_model_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "BUNDLED_MODEL", tmp_path / "absent")
    assert main.main(["demo"]) == 1
    assert "vllm-mindspore demo --model" in capfd.readouterr().err
