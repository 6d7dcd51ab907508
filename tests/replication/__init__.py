"""Replication: the pieces by themselves, between real databases, and a ring of daemons in which all goes wrong."""
