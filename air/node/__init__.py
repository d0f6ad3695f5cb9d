"""Assembly: settings, and the relay made of them."""
