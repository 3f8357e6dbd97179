"""The board as a static site: plain files that work without a server."""
