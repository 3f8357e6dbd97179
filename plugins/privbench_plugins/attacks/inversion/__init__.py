"""Inversion attacks: what they share, and one module for each."""
