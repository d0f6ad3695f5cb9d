"""How bytes travel between machines: TCP, TLS, WebSocket, and plain files over HTTP."""
