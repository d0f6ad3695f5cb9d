"""mplex 6.7.0: streams without flow control, for peers that know nothing else."""
