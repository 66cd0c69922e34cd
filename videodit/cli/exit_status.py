"""The exit statuses of the command line; 128 + N where signal N ended it."""

from videodit.parallel.supervisor import PEER_LOST

__all__ = ["INTERRUPTED", "NO_RESULT", "PEER_LOST", "USER_ERROR"]

NO_RESULT, USER_ERROR, INTERRUPTED = 1, 2, 130
