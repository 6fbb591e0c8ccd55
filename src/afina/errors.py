"""The tree of errors: each class is one thing that can go wrong for a user.

A message says what happened, where, and what to do. The HTTP status and the OpenAI error
envelope are made from `status`, `kind`, `code` and `param` in `afina.api.errors` alone; the
command line prints the message and the remedy on one line. Nothing here imports the project.

    AfinaError
    ├── InvalidRequest 400      ── UnsupportedField, UnknownField, Offline, ContextTooLong,
    │                          ModelNotTunable
    ├── Unauthenticated 401
    ├── Forbidden 403
    ├── NotFound 404            ── ModelNotFound
    ├── Conflict 409            ── IllegalTransition, StaleFence
    ├── TooSlow 408
    ├── TooLarge 413
    ├── Overloaded 429          ── RequestsLimited (RequestsStopped),
    │                          TokensLimited (TokensBeyondLimit)
    ├── QuotaExceeded 429
    ├── StorageFull 507
    ├── Internal 500            ── EngineFailed
    ├── Unavailable 503
    ├── DataUnreadable (a file that cannot be read as what it claims to be)
    ├── BaseRefused    (a base model that afina cannot tune or serve, and why)
    ├── TrainingFailed (out of memory, not a number, lost device, bug)
    └── BadSettings
"""

from __future__ import annotations

from typing import ClassVar


class AfinaError(Exception):
    """Something went wrong that the user should know about."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        remedy: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.remedy = remedy
        self.retry_after_s = retry_after_s

    def one_line(self) -> str:
        """The message and its remedy, for a terminal."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class InvalidRequest(AfinaError):
    """The request cannot be carried out as it was written."""

    status = 400
    kind = "invalid_request_error"


class UnknownField(InvalidRequest):
    """The request has a field that the API does not know."""

    default_code = "unknown_parameter"


class UnsupportedField(InvalidRequest):
    """The request asks for something that the API knows and afina does not offer."""

    default_code = "unsupported_parameter"


class Offline(InvalidRequest):
    """The setting `offline` forbids what would leave this machine."""

    default_code = "offline"


class ContextTooLong(InvalidRequest):
    """Prompt and answer do not fit into the model's context window."""

    default_code = "context_length_exceeded"


class ModelNotTunable(InvalidRequest):
    """The model named in a job cannot be tuned here."""

    default_code = "model_not_available"


class Unauthenticated(AfinaError):
    """The request carries no valid API key."""

    status = 401
    kind = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(AfinaError):
    """The key may not do this."""

    status = 403
    kind = "request_forbidden"


class NotFound(AfinaError):
    """There is no such object in this project."""

    status = 404
    kind = "invalid_request_error"


class ModelNotFound(NotFound):
    """There is no such model in this project."""

    default_code = "model_not_found"


class Conflict(AfinaError):
    """The object is not in a state that allows this."""

    status = 409
    kind = "invalid_request_error"


class IllegalTransition(Conflict):
    """A job cannot go from its state to the one asked for."""


class StaleFence(Conflict):
    """A worker wrote under a lease that it no longer holds."""


class TooSlow(AfinaError):
    """The request's body did not come in time."""

    status = 408
    kind = "invalid_request_error"
    retry = True


class TooLarge(AfinaError):
    """The upload or the request body is larger than the limit."""

    status = 413
    kind = "invalid_request_error"


class Overloaded(AfinaError):
    """The engine's queue is full for the moment."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retry = True


class RequestsLimited(Overloaded):
    """The project asks more often than it may."""

    kind = "requests"


class TokensLimited(Overloaded):
    """The project asks for more tokens than it may."""

    kind = "tokens"


class RequestsStopped(RequestsLimited):
    """The project may ask for nothing at all: its limit is zero."""

    retry = False


class TokensBeyondLimit(TokensLimited):
    """One request asks for more tokens than the project may use in a minute."""

    retry = False


class QuotaExceeded(AfinaError):
    """The key or project has used up what it may use."""

    status = 429
    kind = "insufficient_quota"
    default_code = "insufficient_quota"


class StorageFull(AfinaError):
    """There is no room on the disk for what was asked, or its budget is spent."""

    status = 507
    kind = "insufficient_storage"
    default_code = "disk_budget_spent"


class Internal(AfinaError):
    """A fault of afina's own; the log has the details under the request's id."""


class EngineFailed(Internal):
    """The engine broke off an answer; what was streamed so far is not whole."""

    retry = True


class Unavailable(AfinaError):
    """A part of the platform is not running or not ready yet."""

    status = 503
    retry = True


class DataUnreadable(InvalidRequest):
    """A data file cannot be read as what it claims to be."""

    default_code = "invalid_file_format"


class BaseRefused(InvalidRequest):
    """The base model cannot be tuned or served exactly, for the reason given."""

    default_code = "model_not_available"


class TrainingFailed(AfinaError):
    """A training run ended without a model. `code` is one of out_of_memory, not_finite,
    device_lost, server_error."""

    default_code = "server_error"


class BadSettings(AfinaError):
    """A setting in the environment or in afina.toml is wrong."""
