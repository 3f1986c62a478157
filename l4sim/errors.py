"""The one exception that a user's input can cause."""


class InputError(ValueError):
    """Wrong input, explained in one line: what is wrong, where (file, line, field), and what is accepted.

    The command line prints the message without a traceback and exits with 2.
    """
