"""A small real data set, for `vstore demo` and for tests. What it is and whose: README.md in this folder."""
