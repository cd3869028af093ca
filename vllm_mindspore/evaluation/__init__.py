# SPDX-License-Identifier: Apache-2.0
"""How good a served model is: multiple-choice exams in CEval's layout, and perplexity."""
