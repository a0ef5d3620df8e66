"""The tests of epollwsgi; `python -m tests` runs every check of the project."""
