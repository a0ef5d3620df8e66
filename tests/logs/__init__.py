"""The logs: what lines look like, where they go, and that writing them harms nobody."""
