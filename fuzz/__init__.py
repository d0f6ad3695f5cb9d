"""Fuzzing: what may come from outside, bent in every way by a fuzzer that watches the coverage."""
