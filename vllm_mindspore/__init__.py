# SPDX-License-Identifier: Apache-2.0
"""vLLM platform plugin that computes models as MindSpore graphs; importing it activates it."""

from __future__ import annotations

__version__ = "0.1.0"


def activate() -> None:
    """Make this the platform of vLLM in this process and its children. Idempotent.

    Works before or after `import vllm`.

    Raises:
        RuntimeError: vLLM already runs on another platform, or VLLM_PLUGINS leaves this plugin out.
    """
    from vllm_mindspore.plugin import activate as activate_plugin

    activate_plugin()


activate()
