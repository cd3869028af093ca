# SPDX-License-Identifier: Apache-2.0
"""What runs and what is refused, with its proof: the data of docs/models_and_features.md.

`make docs` prints it there. `tests/test_docs.py` checks that every named test, checkpoint and
refusing check exists, and that every architecture has its row.
"""
