"""Settings: their sources, gunicorn's forms of them, what the operator is shown, and mistakes."""
