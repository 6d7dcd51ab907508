# The two commands of the README, for those who type make.

demo:
	python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/vstore demo

test:
	.venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest

.PHONY: demo test
