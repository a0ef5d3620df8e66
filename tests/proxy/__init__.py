"""Behind a proxy: who is believed, what of it, and what comes of that. OPERATIONS.md 4 and WIRE.md 4."""
