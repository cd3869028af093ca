# SPDX-License-Identifier: Apache-2.0
"""From hidden states to embeddings, class probabilities and scores, with vLLM's own poolers."""

from __future__ import annotations

import numpy as np
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.pooler.special import DispatchPooler
from vllm.pooling_params import PoolingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.pool.late_interaction_runner import LateInteractionRunner

from vllm_mindspore.model_executor.backends.base import Classifier
from vllm_mindspore.worker.requests import Requests


class Pooling:
    """Pools the requests of a batch: into embeddings, or with a classifier into its labels."""

    def __init__(self, config: VllmConfig, classifier: Classifier | None) -> None:
        pooler_config = config.model_config.pooler_config
        assert pooler_config is not None
        with set_current_vllm_config(config):
            self._pooler = (
                DispatchPooler.for_embedding(pooler_config)
                if classifier is None
                else DispatchPooler.for_seq_cls(pooler_config, classifier=classifier)
            )
        self._late_interaction = LateInteractionRunner(enable_flash=False)

    def tasks(self) -> tuple[str, ...]:
        """What requests may ask for, e.g. "embed" or "classify"."""
        return tuple(sorted(self._pooler.get_supported_tasks()))

    def begin(self, scheduled: SchedulerOutput) -> None:
        """Prepares for the requests that start, and forgets those that ended."""
        self._late_interaction.on_requests_finished(scheduled.finished_req_ids)
        for request in scheduled.scheduled_new_reqs:
            params = request.pooling_params
            assert isinstance(params, PoolingParams)
            assert params.task is not None
            self._pooler.get_pooling_updates(params.task).apply(params)
            self._late_interaction.register_request(request.req_id, params)

    def pool(
        self,
        requests: Requests,
        hidden: torch.Tensor,
        query_lens: np.ndarray,
        context_lens: np.ndarray,
    ) -> ModelRunnerOutput:
        """Results of the requests whose prompt ends in this step.

        hidden [T, hidden size] of B requests one after the other, query_lens and context_lens
        i32 [B]: their tokens in this step, and with those before it.
        """
        batch = requests.batch
        metadata = batch.get_pooling_metadata()
        contexts = torch.from_numpy(context_lens)
        metadata.build_pooling_cursor(query_lens, contexts, device=hidden.device)
        pooled = self._pooler(hidden_states=hidden, pooling_metadata=metadata)
        finished = metadata.get_pooling_cursor().get_finished_mask()
        pooled = self._late_interaction.postprocess_pooler_output(
            pooled, metadata.pooling_params, batch.req_ids, finished
        )
        results = [row if done else None for row, done in zip(pooled, finished, strict=True)]
        return ModelRunnerOutput(
            req_ids=batch.req_ids.copy(),
            req_id_to_index=batch.req_id_to_index.copy(),
            pooler_output=[None if row is None else row.clone() for row in results],
        )
