"""The GUN wire: JSON over WebSocket, as gun.js speaks it."""
