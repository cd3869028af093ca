# SPDX-License-Identifier: Apache-2.0
"""Workers of data-parallel engines know how many divide the machine."""

from __future__ import annotations

import pickle
from pathlib import Path

from vllm.engine.arg_utils import EngineArgs

from vllm_mindspore import config_checks
from vllm_mindspore.machine_share import KEY, ranks_of_machine


def test_one_engine_has_the_machine(tiny_model: Path) -> None:
    config = EngineArgs(model=str(tiny_model)).create_engine_config()
    assert config.additional_config == {}
    assert ranks_of_machine(config) == 1


def test_engines_keep_the_number_when_vllm_forgets_it(tiny_model: Path) -> None:
    arguments = EngineArgs(model=str(tiny_model), data_parallel_size=2)
    config = pickle.loads(pickle.dumps(arguments.create_engine_config()))
    assert config.additional_config == {KEY: 2}
    config.parallel_config.data_parallel_size = 1  # as for the engines of dense models
    config.parallel_config.data_parallel_size_local = 1
    config.__post_init__()
    config_checks.check(config)
    assert ranks_of_machine(config) == 2
