"""Agreeing on a protocol: multistream-select."""
