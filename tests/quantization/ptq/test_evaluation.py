# SPDX-License-Identifier: Apache-2.0
"""What is asked of `vllm-mindspore eval`, what is kept, and what is refused before any work.

That results are those of the engine: cli/test_quantize.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.quantization.ptq.conftest import FloatFolder
from tests.quantization.ptq.jobs import make_job
from vllm_mindspore.quantization.description import FLOAT, STATIC, WEIGHT_INT8
from vllm_mindspore.quantization.ptq import evaluation
from vllm_mindspore.quantization.ptq.evaluation import Data, Served
from vllm_mindspore.quantization.ptq.policy import Suppression

ROOT = Path(__file__).resolve().parents[3]
EXAM = ROOT / "examples" / "tiny_model" / "ceval"
TEXT = ROOT / "examples" / "tiny_model" / "heldout.txt"
FLOAT32, BFLOAT16 = (), ("--dtype", "bfloat16")


def test_measures_of_the_data() -> None:
    assert Data().measures() == {}
    assert Data(EXAM, TEXT, 40).measures() == {
        "accuracy": ("--ceval", str(EXAM), "--split", "val", "--limit", "40"),
        "perplexity": ("--perplexity", str(TEXT)),
    }


def test_the_digest_follows_the_contents(tmp_path: Path) -> None:
    file = tmp_path / "text"
    found = set()
    for content, questions in (("a", 1), ("b", 1), ("b", 2)):
        file.write_text(content)
        found.add(Data(EXAM, file, questions).digest())
    assert len(found) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"exam": ROOT / "docs"}, "has no folder 'val'"),
        ({"text": ROOT / "nowhere.txt"}, "cannot read"),
        ({"exam": EXAM, "questions": 0}, "at least 1"),
        ({"text": TEXT, "questions": 3}, "needs --evaluate CEVAL_DIR"),
    ],
)
def test_data_that_is_refused(data: dict[str, Path], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data(**data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "int8_cache", "expected"),
    [(STATIC, False, FLOAT32), (WEIGHT_INT8, False, BFLOAT16), (FLOAT, True, BFLOAT16)],
)
def test_the_dtype_that_both_are_served_in(
    kind: str, int8_cache: bool, expected: tuple[str, ...], float_folder: FloatFolder
) -> None:
    job = make_job(float_folder("qwen3"), kind, Suppression.NONE, int8_cache=int8_cache)
    assert evaluation.engine_options(job) == expected


def test_results_are_kept_for_the_same_data(tmp_path: Path) -> None:
    """Asking for a folder that is none fails; what is kept is not asked for."""
    data, said = Data(text=TEXT), list[str]()
    ranks = ("--tensor-parallel-size", "2")
    models = {
        "float": Served(tmp_path / "none"),
        "quantized": Served(tmp_path / "none either", ranks),
    }
    for which, served in models.items():
        made_from = {
            "arguments": [str(served.folder), "--perplexity", str(TEXT), *served.options],
            "data": data.digest(),
        }
        kept = {"perplexity": len(which), "made_from": made_from}
        (tmp_path / f"perplexity-{which}.json").write_text(json.dumps(kept))
    found = evaluation.measure(data, models, tmp_path, said.append)
    assert found == {"accuracy": None, "perplexity": {"float": 5, "quantized": 9}}
    assert said == []
    others = {"float": Served(tmp_path / "none", BFLOAT16)}
    with pytest.raises(ValueError, match=r"(?s)none.*exit code \d+; what is quantized is kept"):
        evaluation.measure(data, others, tmp_path, said.append)
    assert said == [
        f"Measuring: vllm-mindspore eval {tmp_path / 'none'} --perplexity {TEXT} --dtype bfloat16"
    ]
