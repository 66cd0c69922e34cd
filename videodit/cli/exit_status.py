"""The exit statuses of the command line."""

NO_RESULT, USER_ERROR, INTERRUPTED = 1, 2, 130
