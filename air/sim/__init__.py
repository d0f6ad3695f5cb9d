"""Whole networks under one seed: the real cores, a virtual clock, a virtual network, virtual disks."""
