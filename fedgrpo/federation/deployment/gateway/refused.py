"""Refusals: an HTTP status, and words for who reads the log on the other side.

Each is made where it is raised: one that is kept would keep the frames of all who raised it.
"""

from __future__ import annotations

import json

from starlette.responses import Response


class RefusedError(Exception):
    """A request that goes no further.

    Parameters
    ----------
    status:
        Of HTTP.
    problem, cure:
        For the sender.
    """

    def __init__(self, status: int, problem: str, *, cure: str = "") -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem
        self.cure = cure

    def response(self) -> Response:
        """As Flower's own programs read it, and people."""
        said = {"code": self.status, "detail": self.problem, "extra": self.cure}
        return Response(json.dumps(said), self.status, media_type="application/json")
