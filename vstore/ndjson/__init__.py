"""Documents as lines of JSON: how they leave a store and come in.

lines     one line: its grammar, read and written
sources   the lines of a file or a pipe, plain or compressed
imports   lines into a collection; can be killed, repeated and resumed
exports   a collection as lines that `imports` reads back
"""
