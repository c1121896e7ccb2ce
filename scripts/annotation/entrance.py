"""How browsers are admitted: a token that works once is exchanged for a cookie.

Other users of the machine can read an address in the browser's command line, so an address is worthless once it is
used. The cookie is sent to the page's own path only, whose name is secret as well.
"""

import hmac
import secrets
from collections.abc import Callable

from aiohttp import web

from annotation.errors import Refused

COOKIE = "annotation"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Annotation</title>
<link rel="icon" href="{path}page/icon.svg">
<meta http-equiv="refresh" content="0; url={path}"></head>
<body><p><a href="{path}">Open the page</a></p></body></html>
"""


class Entrance:
    """The tokens and the cookie of a server.

    Attributes:
        path: the path of the page, with a secret name.
    """

    def __init__(self) -> None:
        self.path = f"/{secrets.token_urlsafe(24)}/"
        self._cookie = secrets.token_urlsafe(24)
        self._tokens: dict[str, Callable[[], None]] = {}

    def new_path(self, used: Callable[[], None] = lambda: None) -> str:
        """Make a path that admits one browser. ``used`` is called when it has done so."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = used
        return f"/open/{token}"

    def admits(self, request: web.Request) -> bool:
        """Whether a request has the path of the page and the cookie."""
        given = request.path[: len(self.path)], request.cookies.get(COOKIE, "")
        return all([_is_equal(*pair) for pair in zip(given, (self.path, self._cookie), strict=True)])

    async def enter(self, request: web.Request) -> web.Response:
        """Exchange the token in the path for the cookie, and lead to the page.

        The page follows by a refresh and not by a redirection: where another site has led to the address, browsers send
        no strict cookie after a redirection.

        Raises:
            Refused: the token is wrong or used.
        """
        given = request.match_info["token"]
        token = next((token for token in self._tokens if _is_equal(token, given)), None)
        if token is None:
            raise Refused(403, "this address has been used or is wrong; use the last one that the command has printed")
        self._tokens.pop(token)()
        response = web.Response(text=_PAGE.format(path=self.path), content_type="text/html")
        response.headers["Cache-Control"] = "no-store"
        response.set_cookie(COOKIE, self._cookie, path=self.path, httponly=True, samesite="Strict")
        return response


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
