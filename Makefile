# SPDX-License-Identifier: Apache-2.0
# Each target does its own set-up; what is already done is not done again.

PYTHON ?= python3.11
VENV ?= .venv
MODEL ?=
PEERS ?=
MINUTES ?= 3
SOAK ?=
PY := $(VENV)/bin/python
# Build tools come from the environment first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

LIBRARY_FOLDER := $(CURDIR)/vllm_mindspore/lib
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' vllm_mindspore/__init__.py)
CMAKE_OPS := cmake -S ops -G Ninja -DCMAKE_BUILD_TYPE=Release -DVMO_VERSION=$(VERSION)
PACKAGE_STAMP := $(VENV)/.package-stamp
PACKAGE_FILES := setup.py pyproject.toml $(wildcard vllm_mindspore/source_tree/*/entry_points.txt)
AARCH64_COMPILER := $(shell command -v aarch64-linux-gnu-g++)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup stack ops demo lint portable test test-full soak bench bench-peers eval docs wheel \
	clean

help: ## show this text
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: stack ops $(PACKAGE_STAMP) ## create .venv, install the stack, build the kernel library

stack:
	@.ci/setup $(VENV) $(PYTHON)

ops: stack ## build the CPU kernel library
	@$(CMAKE_OPS) -B build/ops -DVMO_OUTPUT_DIR=$(LIBRARY_FOLDER) --log-level=WARNING >/dev/null
	@cmake --build build/ops

$(PACKAGE_STAMP): $(PACKAGE_FILES) | stack ops
	@echo "Installing vllm-mindspore (editable) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## serve the bundled tiny model, send real requests, print answers (MODEL=name for another)
	@$(VENV)/bin/vllm-mindspore demo $(if $(MODEL),--model $(MODEL))

lint: setup ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

portable: stack ## compile the kernels without any x86 instruction set (and for aarch64 if possible)
	$(CMAKE_OPS) -B build/ops-portable -DVMO_PORTABLE_ONLY=ON \
		-DVMO_OUTPUT_DIR=$(CURDIR)/build/ops-portable/lib --log-level=WARNING >/dev/null
	cmake --build build/ops-portable
ifneq ($(AARCH64_COMPILER),)
	$(CMAKE_OPS) -B build/ops-aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=$(AARCH64_COMPILER) -DVMO_OUTPUT_DIR=$(CURDIR)/build/ops-aarch64/lib \
		--log-level=WARNING >/dev/null
	cmake --build build/ops-aarch64
endif

test: lint portable ## what CI runs: lint, portable build, the covering tests
	$(PY) -m pytest -m "not full"

test-full: lint portable ## every test
	$(PY) -m pytest

soak: setup ## a server under hundreds of clients (MINUTES=120 for longer, SOAK="--report file" for more)
	$(PY) -m benchmarks.soak --minutes $(MINUTES) $(SOAK)

bench: setup ## measure this machine, write docs/performance.md
	$(PY) -m benchmarks

bench-peers: setup ## measure beside vLLM's CPU build (PEERS="--only decode --rounds 3" for less)
	$(PY) -m benchmarks.peers $(PEERS)

eval: setup ## what each way to quantize costs the tiny model, into docs/quantization.md
	$(PY) -m benchmarks.accuracy

docs: setup ## write the generated pages
	$(PY) -c "import sys; from vllm_mindspore import envs; sys.stdout.write(envs.markdown())" \
		> docs/environment_variables.md
	$(PY) -m docs.matrix > docs/models_and_features.md

wheel: setup ## wheel and source distribution into dist/
	$(PY) -c "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"

clean: ## remove what was built, keep .venv
	rm -rf build dist vllm_mindspore/lib *.egg-info $(PACKAGE_STAMP)
