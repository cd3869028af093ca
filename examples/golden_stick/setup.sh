#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes an environment for Golden Stick, whose pins (MindSpore 2.7.1, numpy 1) conflict with vLLM's.
#
# usage: examples/golden_stick/setup.sh [VENV] [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-build/golden_stick/venv}
python=${2:-python3.11}

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import importlib.metadata as m, sys
sys.exit(m.version("mindspore_gs") != "1.4.1")' 2>/dev/null; then
    echo "$venv holds Golden Stick 1.4.1 already"
    exit 0
fi
"$python" -m venv "$venv"
# Golden Stick says datasets>=4; later ones want a huggingface_hub that transformers 4.57.1 does not,
# and later pyarrow wants numpy 2.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    mindspore_gs==1.4.1 'datasets>=4,<5' 'pyarrow<23'
echo "Golden Stick 1.4.1 is in $venv"
