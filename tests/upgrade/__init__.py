"""Interim responses, and connections handed to the application: early hints, WebSocket, the chat of the examples."""
