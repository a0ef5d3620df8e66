"""Processes: what builds and runs a worker."""
