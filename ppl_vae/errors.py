"""The one error a user's mistake raises."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that breaks a rule: the message names argument, rule, value and remedy.

    The command line prints the message and exits with 2; every other exception is a fault of the
    program and keeps its traceback.

    Example:
        >>> from ppl_vae.errors import InputError
        >>> raise InputError("num_draws must be at least 1, but it is 0; ask for one draw or more")
        Traceback (most recent call last):
        ...
        ppl_vae.errors.InputError: num_draws must be at least 1, but it is 0; ask for one draw or more
    """
