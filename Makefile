# make demo and make test set up everything they need; a second run installs nothing again.
.PHONY: setup setup-test demo test lint clean

setup:
	@./setup.sh

setup-test:
	@./setup.sh test

demo: setup
	.venv/bin/cbnn demo --out out/demo

test: setup-test
	.venv/bin/python -m pytest

lint: setup-test
	.venv/bin/ruff check .
	.venv/bin/mypy model hw sim

clean:
	rm -rf .venv build out *.egg-info
