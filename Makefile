# Three commands: `make demo`, `make test`, `make check`. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE ?= 1

# Tests run on one thread each; the demo and the server use all cores.
test test-marked test-studies test-ray docs report: export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo report serve test test-marked test-studies test-ray check format docs site image packages licences lock sbom clean

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Hashed files only, no package's own code while it is installed, and nothing that is not in locks/.
LOCKED := install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes

$(BIN)/.installed: pyproject.toml $(wildcard locks/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip $(LOCKED) -r locks/torch-cpu.txt || $(BIN)/python -m pip $(LOCKED) -r locks/torch.txt
	$(BIN)/python -m pip $(LOCKED) -r locks/run.txt -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

build/tools/.installed: locks/tools.txt
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip $(LOCKED) -r locks/tools.txt
	@touch $@

setup: $(BIN)/.installed ## make .venv with everything pinned in constraints.txt and hashed in locks/

demo: setup ## one question for eight users, into out/demo; make demo PROMPT="..." asks another
	$(BIN)/palate demo --out out/demo $(if $(PROMPT),--prompt "$$PROMPT")

report: setup ## the fair board in small on the shipped library, into out/report; goes on where it stopped
	$(BIN)/python -m research.board --small --out out/report $(REPORT_OPTIONS)

serve: setup ## serve the shipped library at http://127.0.0.1:8000
	@mkdir -p out
	$(BIN)/palate serve smollm2-135m --database out/users.db

# Files of tests run side by side, one process a core, in their own order: sorted by how many tests
# they hold, the long single ones would come last and leave a core idle.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder

test: setup ## the default tests
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow and not gpu and not postgres and not browser and not alone"

test-marked: setup ## the slow tests, and those that need PostgreSQL or Chromium
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "(slow or postgres or browser) and not gpu and not ray and not alone and not study"
	$(BIN)/python -m pytest -q -m "alone and not gpu and not ray"

test-studies: setup ## recorded figures of studies made again, half an hour; after a change of what they measure
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m study

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

build/docs/.installed: locks/docs.txt
	$(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip $(LOCKED) -r locks/docs.txt
	@touch $@

site: setup build/docs/.installed ## build the documents' site into out/site; warnings are errors
	$(BIN)/python docs/_build/stage.py
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict --quiet

image: setup ## the Dockerfile's Python steps and its command, without an engine
	$(BIN)/python .ci/image.py

packages: setup ## a wheel and a source archive, into dist
	$(BIN)/python -m hatchling build

licences: setup ## write docs/licences.md anew, after a change of locks/
	$(BIN)/python .ci/licences.py

lock: build/tools/.installed ## write locks/ anew, after a change of constraints.txt or pyproject.toml
	build/tools/bin/python .ci/lock.py

sbom: setup build/tools/.installed ## list what is installed as a bill of materials (CycloneDX), into out/sbom.json
	@mkdir -p out
	build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file out/sbom.json $(BIN)/python

clean: ## remove what the build made
	rm -rf $(VENV) out build dist .pytest_cache .ruff_cache
