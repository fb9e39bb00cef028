"""Benchmarks: ours and a peer in turn on the same work, each measurement in its own process."""
