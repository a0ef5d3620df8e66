"""Tests of the wire: raw bytes to the parser and to live servers (WIRE.md 1, 2, 3)."""
