"""One file per side: `measure(work)` does the work once and returns its speed and memory."""
