"""The error of an invalid request."""


class Refused(Exception):
    """A request of the page is invalid. The message is one sentence for the user, and the status that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
