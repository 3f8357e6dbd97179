"""What the kit puts into the processes that a plugin starts."""
