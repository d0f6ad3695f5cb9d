"""The program: its settings, its command line, its admin interface. Nothing imports it."""
