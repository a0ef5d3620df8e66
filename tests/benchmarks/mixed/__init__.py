"""Slow requests beside fast ones, run by hand: `python -m tests.benchmarks.mixed`; pytest collects nothing here."""
