"""What goes wrong on purpose."""


class LeaderboardError(Exception):
    """A record cannot be read, or records contradict each other. The message names the file."""
