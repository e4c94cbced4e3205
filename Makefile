# Sotto's commands. `make` lists them. Needs Python 3.11, 3.12 or 3.13 with venv, make and git; nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PRESET ?=
PY ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)

# An empty value lets Python write its byte code: without it every import of torch costs twice the time.
export PYTHONDONTWRITEBYTECODE :=
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export ITERATIVE_DO_NOT_TRACK := 1
export GIT_PYTHON_REFRESH := quiet
# Absolute, because `dvc exp run --temp` and presets run in copies of this folder.
ifeq ($(strip $(MLFLOW_TRACKING_URI)),)
MLFLOW_TRACKING_URI := sqlite:///$(CURDIR)/mlflow.db
endif
export MLFLOW_TRACKING_URI
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup repro device repro-real test smoke bench mlflow lab lint lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .venv/.stamp  ## the virtual environment, from requirements.lock (about a minute)

.venv/.stamp: requirements.lock pyproject.toml
	@test -n "$(PY)" || { echo "No Python 3.11, 3.12 or 3.13 with the venv module was found;" \
		"install one, or name it: make PY=/path/to/python3.11"; exit 2; }
	@echo "Installing into .venv with $(PY) (about a minute) …"
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PY) -m venv --clear .venv
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@.venv/bin/uv pip sync -q --require-hashes --python .venv/bin/python requirements.lock
	@.venv/bin/uv pip install -q --no-deps --no-build-isolation --python .venv/bin/python -e .
	@touch $@

ifeq ($(strip $(PRESET)),)
repro: .venv/.stamp .scratch/params.checked  ## the main job: every stage out of date (PRESET=full|joint|…: in runs/PRESET)
	@.venv/bin/dvc repro report
else
repro: .venv/.stamp
	@.venv/bin/python -m pipeline.presets $(PRESET)
endif

# The whole file, before the first stage starts: a wrong key of the last stage should not wait half an hour.
.scratch/params.checked: params.yaml $(wildcard pipeline/*.py pipeline/*/config.py) | .venv/.stamp
	@.venv/bin/python -m pipeline.params
	@mkdir -p $(@D) && touch $@

device: repro  ## after the main job: the cloud's language model, the end-pointer, the engine's numbers (10 minutes)
	@.venv/bin/dvc repro language_model stream
	@.venv/bin/python -m pipeline.evaluation.device_table

repro-real: .venv/.stamp  ## the same graph on real speech; SOTTO_MANIFEST names the JSONL manifest
	@.venv/bin/python -m pipeline.presets real

test: .venv/.stamp  ## every check and test, the toy graph included (within 12 minutes on 2 cores)
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile

smoke: .venv/.stamp  ## the whole graph on toy parameters in a temporary copy (2 minutes)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -s tests/test_smoke.py

bench: .venv/.stamp  ## side-by-side timings
	@for script in bench/*.py; do echo "== $$script"; .venv/bin/python "$$script" || exit 1; done

mlflow: .venv/.stamp  ## the board: every run; prints the address of the compression trade-offs
	@.venv/bin/python -m pipeline.tracking.board

lab: .venv/.stamp  ## the notebooks
	@.venv/bin/jupyter lab notebooks

lint: .venv/.stamp  ## ruff, import layers, types
	@.venv/bin/ruff check .
	@.venv/bin/lint-imports
	@.venv/bin/mypy

lock: .venv/.stamp  ## requirements.in → requirements.lock (universal, hashes, no addresses)
	@.venv/bin/uv pip compile requirements.in --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -q -o requirements.lock

clean:  ## remove scratch folders, presets' copies and caches of tools (keeps data/, the DVC cache and mlflow.db)
	rm -rf .scratch runs .pytest_cache .ruff_cache .mypy_cache .hypothesis build sotto.egg-info
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
