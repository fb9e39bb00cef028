"""Benchmarks: ours and a peer in turn on the same work, every measurement in its own process."""
