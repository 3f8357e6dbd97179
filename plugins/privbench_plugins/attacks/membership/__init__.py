"""Attacks on membership: what they share, and one module for each."""
