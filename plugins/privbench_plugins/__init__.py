"""Built-in anonymizers, attacks, metrics and data sets."""
