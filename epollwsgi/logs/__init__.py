"""The error log and the access log: what their lines look like, and where they go."""
