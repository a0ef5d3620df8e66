"""WSGI applications that the tests serve; nothing outside tests imports them."""
