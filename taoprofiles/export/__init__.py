"""Writes a profile for other tools than the launcher: docker run, Compose, a Kubernetes Job, srun with pyxis."""

TARGETS = ("docker", "compose", "kubernetes", "slurm")
