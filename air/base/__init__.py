"""Ground floor: errors, time, randomness, counters. Everything may import it."""
