"""The shipped recogniser of clear faces, which judges reconstructions and which no attack knows."""
