# Each target sets up what it needs: `.venv` is made once, and again when what it is made from changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# At most four workers: each one loads TensorFlow. Tests differ in length a thousandfold: who is done first takes over.
PYTEST_FLAGS ?= -n auto --maxprocesses=4 --dist=worksteal
DEMO_FLAGS ?=
DEMO_DIR = $(or $(patsubst --out_dir=%,%,$(filter --out_dir=%,$(DEMO_FLAGS))),quickstart_results)

# Nothing here needs a GPU, and TensorFlow's start-up messages hide ours.
export TF_CPP_MIN_LOG_LEVEL ?= 2

VERSION_OF = -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(origin PYTHON),file)
# A Python was asked for by name: an environment of another version is made anew.
ifneq ($(shell $(PYTHON) $(VERSION_OF)),$(shell $(BIN)/python $(VERSION_OF) 2>/dev/null))
CLEAR := --clear
.PHONY: $(INSTALLED)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format benchmark install clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "PYTHON=python3.x chooses the Python (3.10 to 3.13)."

demo: $(INSTALLED) ## Train a float network and its 2-bit versions, export and prove one (three minutes)
	$(BIN)/python examples/quickstart.py $(DEMO_FLAGS)
	$(BIN)/python examples/export_and_verify.py --model_path=$(DEMO_DIR)/low_bit.keras \
	  $(filter --dataset=% --data_dir=% --out_dir=%,$(DEMO_FLAGS))

test: $(INSTALLED) ## Run the tests; PYTEST_FLAGS="-k name" chooses
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(INSTALLED) ## Check style and the types of the NumPy parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Rewrite the files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(INSTALLED) ## Measure what quantization, widening and distillation cost in time
	@set -e; for script in tests/benchmarks/*_benchmark.py; do \
	  echo "== $$script"; $(BIN)/python $$script; done

install: $(INSTALLED) ## Make .venv with the package and its tested versions

clean: ## Remove .venv and what the tools left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	sys.exit(not (3, 10) <= v[:2] <= (3, 13) and "TensorFlow runs here on Python 3.10 to 3.13; \
	$(PYTHON) is %d.%d. Try make PYTHON=python3.12." % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python lacks venv. On Debian and" \
	"Ubuntu: sudo apt-get install python$$($(PYTHON) $(VERSION_OF))-venv" >&2; exit 1; }
	@rm -f $@
	@echo "Installing into $(VENV); the first time this downloads about 1 GB."
	$(PYTHON) -m venv $(CLEAR) $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
