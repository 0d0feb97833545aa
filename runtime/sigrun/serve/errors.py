"""What goes wrong with a request, in the object that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sigrun.errors import SigrunError


class ApiError(SigrunError):
    """A request that gets an error for an answer.

    Args:
        status: the HTTP status.
        message: what happened, and why.
        hint: the way out.
        code: a word for programs.
        param: the field of the request that it concerns.
        headers: further headers of the answer.
        close: whether the connection ends with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if close:
            self.headers["connection"] = "close"

    def to_json(self) -> dict[str, Any]:
        """The answer's body."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        return {"error": error_object(self, kind, self.code, self.param)}


def error_object(
    error: SigrunError, kind: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's object; the hint follows the message."""
    message = error.message if error.hint is None else f"{error.message} (hint: {error.hint})"
    return {"message": message, "type": kind, "param": param, "code": code}


def unprocessable(
    message: str, param: str | None, *, hint: str | None = None, code: str = "invalid_value"
) -> ApiError:
    """A request that is well formed and cannot be meant."""
    return ApiError(422, message, hint=hint, code=code, param=param)


def busy(message: str, seconds: float, *, code: str = "overloaded") -> ApiError:
    """Too much is asked for at once."""
    return ApiError(
        429, message, hint="try again later", code=code, headers={"retry-after": str(retry_after(seconds))}
    )


def unavailable(message: str, seconds: float, *, code: str, hint: str | None = None) -> ApiError:
    """The server cannot answer now, and will later."""
    return ApiError(503, message, hint=hint, code=code, headers={"retry-after": str(retry_after(seconds))})


def retry_after(seconds: float) -> int:
    """Whole seconds to wait, 1 to 60."""
    return min(60, max(1, round(seconds)))
