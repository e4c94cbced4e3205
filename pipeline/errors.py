"""The one exception that a user's mistake raises; entry points print it and exit with code 2."""


class UserError(Exception):
    """Bad input. The message is one sentence: which file or key, what is wrong, what would be right."""
