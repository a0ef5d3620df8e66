"""HTTP/1.1 messages as pure functions and values: no socket, no clock, no configuration."""
