"""A program that serves: `epollwsgi.serve`, `epollwsgi.testing.LiveServer`, and the plugin of pytest."""
