"""One file a side: `measure(work)` does the work once and says how fast and in how much memory."""
