# Short names for scripts and tools. Give arguments by ARGS: make test ARGS="-x tests/nn/layers/test_layers.py"
.PHONY: test lint docs bench train

test:
	scripts/test.sh $(ARGS)

# Needs the extra dev: .venv/bin/python -m pip install -e '.[dev]'
lint:
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy --strict gpunn
	.venv/bin/shellcheck --external-sources scripts/*.sh .ci/run

docs:
	.venv/bin/python benchmarks/write_docs.py
	.venv/bin/python benchmarks/gpu_page.py

bench:
	.venv/bin/python -m gpunn bench $(ARGS)

train:
	scripts/train.sh $(ARGS)
