"""Tests of the WSGI side: environ, start_response and the framing of responses (WIRE.md 4, 5)."""
