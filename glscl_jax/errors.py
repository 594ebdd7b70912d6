"""The one exception that speaks to the user."""


class UserError(Exception):
    """Something the user can mend: a file, a row, a flag.

    Its message is one line that names the thing and the way out. Programs print it and exit
    with status 2 (see `program.run`); no traceback is shown.
    """
