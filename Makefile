# Sigrun: `make` alone lists the targets.
#
# MODEL    what to export: a hub id or a local checkpoint folder
#          (default google/siglip-so400m-patch14-384)
# VARIANT  recipe for `make export`            (default q4_k_m; `sigrun-export recipes` lists them)
# OUT      folder for artifacts                (default models)
# FORCE=1  replace an existing artifact
# PYTHON   interpreter for the environments    (default python3, 3.11 or newer)

MODEL ?= google/siglip-so400m-patch14-384
VARIANT ?= q4_k_m
OUT ?= models
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
REFERENCE := .venv-reference
BULK := .venv-bulk
APP := .venv-app
DEMO_MODEL := examples/emoji_siglip/emoji-siglip-patch10-60
DEMO_ARTIFACT := $(OUT)/emoji-siglip-patch10-60/emoji-siglip-patch10-60-q4_k_m.gguf
DEMO_PICTURES := examples/emoji_siglip/heldout/demo
CONSTRAINTS := .ci/constraints.txt
BULK_CONSTRAINTS := .ci/constraints-bulk.txt
REFERENCE_CONSTRAINTS := .ci/constraints-reference.txt
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-reference test-bulk test-app test-hosts lint format export export-q4 verify hwcheck serve app wheelhouse bench clean

help:  ## list the targets
	@echo "usage: make TARGET [MODEL=... VARIANT=... OUT=... FORCE=1]"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[cpu,export,hwcheck]"
	@touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[cpu,export,hwcheck,serve]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[cpu,export,hwcheck,test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[cpu,export,hwcheck,dev]"
	@touch $@

$(REFERENCE)/.installed: pyproject.toml $(REFERENCE_CONSTRAINTS)
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/python $(PIP_INSTALL) -c $(REFERENCE_CONSTRAINTS) -e ".[cpu,export,hwcheck,test,reference]"
	@touch $@

setup: $(VENV)/.installed  ## create .venv and install what export, hwcheck and the runtime need (no torch)

$(REFERENCE)/.installed-bench: $(REFERENCE)/.installed
	$(REFERENCE)/bin/python $(PIP_INSTALL) -c $(REFERENCE_CONSTRAINTS) -e ".[cpu,export,hwcheck,test,reference,search,ray]"
	@touch $@

$(BULK)/.installed: pyproject.toml $(BULK_CONSTRAINTS)
	$(PYTHON) -m venv $(BULK)
	$(BULK)/bin/python $(PIP_INSTALL) -c $(BULK_CONSTRAINTS) -e ".[cpu,export,hwcheck,test,search,parquet,ray]" pandas pyspark daft datasets
	@touch $@

$(APP)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(APP)
	$(APP)/bin/python $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[cpu,export,hwcheck,test]" PySide6_Essentials pyinstaller
	@touch $@

demo: setup  ## export the bundled model to Q4_K_M, check that it fits, classify pictures it never saw
	@echo "== export: checkpoint -> Q4_K_M"
	@$(BIN)/sigrun-export convert $(DEMO_MODEL) --variant q4_k_m -o $(OUT) --force
	@echo "== hwcheck: does it fit this machine?"
	@$(BIN)/hwcheck $(DEMO_ARTIFACT)
	@echo "== classify: drawings by a vendor the model was not trained on"
	@$(BIN)/sigrun classify $(DEMO_ARTIFACT) $(DEMO_PICTURES)/*.png --labels examples/emoji_siglip/heldout/demo/labels.txt --top 3

test: $(VENV)/.installed-test  ## run the tests (no torch, no network once installed)
	$(BIN)/python -m pytest $(ARGS)

test-reference: $(REFERENCE)/.installed  ## compare live with torch, transformers, optimum, gguf and ggml (installs torch)
	$(REFERENCE)/bin/python -m pytest -m reference $(ARGS)

test-bulk: $(BULK)/.installed  ## run under Ray, Spark, Daft, pandas and usearch (installs them, 1.5 GB; Spark needs Java)
	$(BULK)/bin/python -m pytest -m bulk $(ARGS)

test-app: $(APP)/.installed  ## drive the desktop app, freeze it and the commands, install offline (installs Qt and PyInstaller)
	$(APP)/bin/python -m pytest -m app $(ARGS)

test-hosts: $(VENV)/.installed-test  ## compare the programs for Node, browser and C++ with the runtime (needs npm; skips what the machine lacks)
	@if command -v npm > /dev/null; then cd examples/hosts && npm ci --silent --no-audit --no-fund; else echo "npm is missing: hosts in JavaScript are skipped"; fi
	$(BIN)/python -m pytest -m hosts $(ARGS)

lint: $(VENV)/.installed-dev  ## check style, types and that what is pasted into the docs is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/paste.py --check

format: $(VENV)/.installed-dev  ## format the code and paste current command help into the docs
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/paste.py

export: setup  ## convert MODEL to VARIANT under OUT (ARGS="--format onnx": more in exporters/README.md)
	$(BIN)/sigrun-export convert "$(MODEL)" --variant $(VARIANT) -o "$(OUT)" $(if $(FORCE),--force) $(ARGS)

export-q4: override VARIANT := q4_k_m
export-q4: export  ## convert MODEL to q4_k_m under OUT

verify: setup  ## compare the exported VARIANT under OUT with MODEL once more (ARGS="--against transformers" needs BIN=.venv-reference/bin)
	$(BIN)/sigrun-export verify "$(OUT)/$(notdir $(MODEL))/$(notdir $(MODEL))-$(VARIANT).gguf" --reference "$(MODEL)" $(ARGS)

hwcheck: setup  ## which variants fit this machine (ARGS="file.gguf" checks a file)
	$(BIN)/hwcheck $(ARGS)

serve: $(VENV)/.installed-serve  ## serve the exported VARIANT under OUT on http://127.0.0.1:8000 (ARGS="--help")
	$(BIN)/sigrun serve "$(OUT)/$(notdir $(MODEL))/$(notdir $(MODEL))-$(VARIANT).gguf" $(ARGS)

app: $(APP)/.installed  ## freeze the desktop app and the commands into dist/photo_desk and dist/sigrun, which need no Python
	$(APP)/bin/python -m PyInstaller --noconfirm --log-level WARN packaging/sigrun.spec
	$(APP)/bin/python -m PyInstaller --noconfirm --log-level WARN packaging/photo_desk.spec

wheelhouse: setup  ## gather in dist/wheelhouse what an offline machine needs to install Sigrun (ARGS="--help")
	$(BIN)/python packaging/wheelhouse.py dist/wheelhouse $(ARGS)

bench: $(REFERENCE)/.installed-bench  ## measure accuracy, quantizers, and a synthetic model of the published size; writes BENCHMARKS.md (26 GB of disk)
	$(REFERENCE)/bin/python -m benchmarks.report

clean:  ## remove environments, caches and built files; models stay
	rm -rf $(VENV) $(REFERENCE) $(BULK) $(APP) .venv-openvino dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis examples/hosts/node_modules examples/hosts/cpp/build
