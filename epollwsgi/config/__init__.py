"""Settings: how a value is read, the one table of them, and where they come from."""
