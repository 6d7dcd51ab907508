"""The `vstore` command: `vstore COMMAND [COLLECTION] [KEY …] --store URL`.

    program     the command itself: finding commands, errors as exit codes
    options     what commands share: the store, a collection, a moment
    functions   functions named on the command line, FILE.py:function
    output      values, lines and tables on stdout; talk on stderr

All other modules hold commands, and are imported when one of theirs is used.
"""

from vstore.cli.program import main

__all__ = ["main"]
