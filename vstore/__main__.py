"""`python -m vstore`: the command line."""

from vstore.cli import main

main(prog_name="python -m vstore")
