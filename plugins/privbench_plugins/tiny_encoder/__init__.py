"""The shipped face embedder: a small network trained on background renders only."""
