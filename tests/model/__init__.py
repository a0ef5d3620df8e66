"""All interleavings, within stated bounds, of the protocols by which the threads of a worker share their state."""
