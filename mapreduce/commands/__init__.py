"""What `mapreduce` adds to the `vstore` command: one module for each command.

    options     what they share: which documents, and how a job runs
    formats     rows as tables, JSON lines and CSV

A module imports the engine when its command runs and not before, so that help,
and the commands of other extensions, do not wait for it.
"""
