"""The error of a request that cannot be met."""


class Refused(Exception):
    """A request of the page cannot be met. The message is one sentence for the person at the page.

    Args:
        status: the status code of HTTP for the answer.
        message: the sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
