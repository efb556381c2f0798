"""Writes a profile for other programs. The names of the targets are here for the command line."""

TARGETS = ("docker", "compose", "kubernetes", "slurm", "edf")
