"""Measurements run by hand: `python -m tests.benchmarks`; pytest collects nothing here."""
