"""Tests of adaptive dispatch under load: DESIGN.md 3, with a live server and many connections at once."""
