# make demo and make test set up everything they need; a second run installs nothing again.
EXAMPLES ?= 200
MUTATIONS ?= 10000
KILLS ?= 40
FRAMES ?= 1000
BOARD_IMAGES ?= 100
.PHONY: setup setup-test setup-bench demo test test-slow test-long bench-rtl bench-dataflow bench-golden lint clean

setup:
	@./setup.sh

setup-test:
	@./setup.sh test

setup-bench:
	@./setup.sh bench

demo: setup
	.venv/bin/cbnn demo --out out/demo

# All but what is marked slow; test-slow is the rest. Together they are all tests.
test: setup-test
	.venv/bin/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: setup-test
	.venv/bin/python -m pytest -n auto --dist worksteal -m slow

# EXAMPLES random networks through the RTL, about three seconds each; MUTATIONS of every kind of file; KILLS of commands;
# FRAMES disturbed on a board's serial line; BOARD_IMAGES through the pin of its netlist.
test-long: setup-test
	CBNN_EXAMPLES=$(EXAMPLES) CBNN_MUTATIONS=$(MUTATIONS) CBNN_KILLS=$(KILLS) CBNN_FRAMES=$(FRAMES) \
		CBNN_BOARD_IMAGES=$(BOARD_IMAGES) \
		.venv/bin/python -m pytest -n auto --dist worksteal tests/system tests/hw/boards tests/sim/board

# Networks of others' sizes on the RTL: cycles, scores, LUTs, clock; about an hour.
bench-rtl: setup-bench
	.venv/bin/python bench/rtl.py

# The dataflow simulation beside Verilator and Icarus, FIFO sizing, foldings; about ten minutes.
bench-dataflow: setup-bench
	.venv/bin/python bench/dataflow.py

# The golden model beside PyTorch and onnxruntime; about three minutes.
bench-golden: setup-bench
	.venv/bin/python bench/golden.py

lint: setup-test
	.venv/bin/ruff check .
	.venv/bin/mypy model hw sim

clean:
	rm -rf .venv build out *.egg-info
