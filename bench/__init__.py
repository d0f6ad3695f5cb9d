"""Benchmarks: a load generator for GUN relays, and the tables it prints. (core)

Nothing here is part of the ``air`` package; see ``bench/README.md``.
"""
