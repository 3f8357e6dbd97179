"""Built-in anonymizers."""
