# SPDX-License-Identifier: Apache-2.0
"""A server under everything at once, for minutes or hours: `make soak`."""
