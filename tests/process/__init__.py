"""Tests of processes: the master and its parts, workers under load, signals (OPERATIONS.md 2, 3, 6)."""
