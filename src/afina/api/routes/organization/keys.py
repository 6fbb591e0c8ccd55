"""/v1/organization: admin keys, the keys of projects, and service accounts with theirs."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.api.routes.organization.shared import ListQuery, body_of, removed, short_page
from afina.domain.accounts import ApiKey, OwnerKind, ServiceAccount
from afina.service import keys, people
from afina.service.keys import NewKey
from afina.service.refusals import Wire

router = APIRouter(prefix="/v1/organization", tags=["organization"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_PROJECT: Final = "/projects/{project_id}"
_ACCOUNT: Final = _PROJECT + "/service_accounts/{account_id}"
Name = Annotated[str, Field(min_length=1, max_length=200)]
Life = Annotated[int, Field(ge=1, le=316_224_000)]
Scopes = list[Annotated[str, Field(max_length=64)]]


class AdminKeyCreate(Wire):
    """POST /v1/organization/admin_api_keys."""

    name: Name
    expires_in_seconds: Life | None = None


class KeyUpdate(Wire):
    """POST /v1/organization/projects/{id}/api_keys/{key}."""

    expires_in_seconds: Life | None = None
    scopes: Scopes | None = None


class AccountCreate(Wire):
    """POST /v1/organization/projects/{id}/service_accounts."""

    name: Name
    create_service_account_only: bool | None = None
    expires_in_seconds: Life | None = None


class AccountUpdate(Wire):
    """POST /v1/organization/projects/{id}/service_accounts/{account}."""

    name: Name | None = None
    role: Literal["owner", "member", "none"] | None = None


class AccountKeyCreate(Wire):
    """POST …/service_accounts/{account}/api_keys."""

    name: Name | None = None
    expires_in_seconds: Life | None = None
    scopes: Scopes | None = None


class AdminKeyListQuery(ListQuery):
    """GET /v1/organization/admin_api_keys."""

    order: Literal["asc", "desc"] = "asc"


class KeyListQuery(ListQuery):
    """GET /v1/organization/projects/{id}/api_keys."""

    owner_project_access: Literal["active", "inactive", "any"] = "any"


SHAPES: Final[tuple[type[BaseModel], ...]] = (
    AdminKeyCreate,
    KeyUpdate,
    AccountCreate,
    AccountUpdate,
    AccountKeyCreate,
    AdminKeyListQuery,
    KeyListQuery,
)


@router.post(
    "/admin_api_keys",
    summary="Make an admin key",
    openapi_extra=documented(body=AdminKeyCreate),
    dependencies=[_NO_QUERY],
)
async def create_admin(call: Caller_) -> Response:
    """Its `value` is shown this once."""
    asked = await body_of(call, AdminKeyCreate)
    new = NewKey(asked.name, asked.expires_in_seconds)
    key, secret = await to_thread.run_sync(keys.create_admin_key, call.platform, call.caller, new)
    return answer(_admin_key(key) | {"value": secret})


@router.get(
    "/admin_api_keys",
    summary="List admin keys",
    openapi_extra=documented(query=AdminKeyListQuery),
)
def list_admin(
    call: Caller_, asked: Annotated[AdminKeyListQuery, Depends(query(AdminKeyListQuery))]
) -> Response:
    """Those that live."""
    found = keys.list_admin_keys(call.platform, call.caller)
    return short_page(found if asked.order == "desc" else found[::-1], _admin_key, asked)


@router.get("/admin_api_keys/{key_id}", summary="An admin key", dependencies=[_NO_QUERY])
def retrieve_admin(call: Caller_, key_id: str) -> Response:
    """Without its value."""
    return answer(_admin_key(keys.get_admin_key(call.platform, call.caller, key_id)))


@router.delete("/admin_api_keys/{key_id}", summary="End an admin key", dependencies=[_NO_QUERY])
def delete_admin(call: Caller_, key_id: str) -> Response:
    """From now on it opens nothing."""
    keys.revoke_admin_key(call.platform, call.caller, key_id)
    call.parts.keyring.forget(key_id)
    return removed(key_id, "organization.admin_api_key")


@router.get(
    _PROJECT + "/api_keys",
    summary="List a project's keys",
    openapi_extra=documented(query=KeyListQuery),
)
def list_keys(
    call: Caller_,
    project_id: str,
    asked: Annotated[KeyListQuery, Depends(query(KeyListQuery))],
) -> Response:
    """Those that live, newest first; every owner has access, so `inactive` finds none."""
    found = keys.list_keys_of(call.platform, call.caller, project_id)
    shown = [] if asked.owner_project_access == "inactive" else found
    return short_page(shown, _Shaper(call, project_id), asked)


@router.get(_PROJECT + "/api_keys/{key_id}", summary="A project's key", dependencies=[_NO_QUERY])
def retrieve_key(call: Caller_, project_id: str, key_id: str) -> Response:
    """Without its value."""
    key = keys.get_key_of(call.platform, call.caller, project_id, key_id)
    return answer(_Shaper(call, project_id)(key))


@router.post(
    _PROJECT + "/api_keys/{key_id}",
    summary="Restrict a project's key",
    openapi_extra=documented(body=KeyUpdate),
    dependencies=[_NO_QUERY],
)
async def update_key(call: Caller_, project_id: str, key_id: str) -> Response:
    """Another end, other scopes; an empty list of scopes lifts all restrictions."""
    asked = await body_of(call, KeyUpdate)
    scopes = None if asked.scopes is None else tuple(asked.scopes)

    def change() -> dict[str, Any]:
        key = keys.get_key_of(call.platform, call.caller, project_id, key_id)
        seconds = asked.expires_in_seconds
        changed = keys.restrict_key(call.platform, call.caller, key, seconds, scopes)
        return _Shaper(call, project_id)(changed)

    shown = await to_thread.run_sync(change)
    call.parts.keyring.forget(key_id)
    return answer(shown)


@router.delete(
    _PROJECT + "/api_keys/{key_id}", summary="End a project's key", dependencies=[_NO_QUERY]
)
def delete_key(call: Caller_, project_id: str, key_id: str) -> Response:
    """From now on it opens nothing."""
    keys.revoke_key_of(call.platform, call.caller, project_id, key_id)
    call.parts.keyring.forget(key_id)
    return removed(key_id, "organization.project.api_key")


@router.post(
    _PROJECT + "/service_accounts",
    summary="Make a service account",
    openapi_extra=documented(body=AccountCreate),
    dependencies=[_NO_QUERY],
)
async def create_account(call: Caller_, project_id: str) -> Response:
    """With its first key, whose value is shown this once, unless only the account is wanted."""
    asked = await body_of(call, AccountCreate)
    alone = bool(asked.create_service_account_only)

    def make() -> dict[str, Any]:
        account = people.create_service_account(
            call.platform, call.caller, project_id, asked.name, "none" if alone else "member"
        )
        shown = _account(account)
        if not alone:
            new = AccountKeyCreate(expires_in_seconds=asked.expires_in_seconds)
            shown["api_key"] = _account_key(call, account, new)
        return shown

    return answer(await to_thread.run_sync(make))


@router.get(
    _PROJECT + "/service_accounts",
    summary="List service accounts",
    openapi_extra=documented(query=ListQuery),
)
def list_accounts(
    call: Caller_, project_id: str, asked: Annotated[ListQuery, Depends(query(ListQuery))]
) -> Response:
    """Oldest first."""
    found = people.list_service_accounts(call.platform, call.caller, project_id)
    return short_page(found, _account, asked)


@router.get(_ACCOUNT, summary="A service account", dependencies=[_NO_QUERY])
def retrieve_account(call: Caller_, project_id: str, account_id: str) -> Response:
    """Without its keys."""
    found = people.get_service_account(call.platform, call.caller, project_id, account_id)
    return answer(_account(found))


@router.post(
    _ACCOUNT,
    summary="Change a service account",
    openapi_extra=documented(body=AccountUpdate),
    dependencies=[_NO_QUERY],
)
async def update_account(call: Caller_, project_id: str, account_id: str) -> Response:
    """Another name or role."""
    asked = await body_of(call, AccountUpdate)

    def change() -> ServiceAccount:
        found = people.get_service_account(call.platform, call.caller, project_id, account_id)
        return people.change_service_account(
            call.platform, call.caller, found, asked.name, asked.role
        )

    return answer(_account(await to_thread.run_sync(change)))


@router.delete(_ACCOUNT, summary="End a service account", dependencies=[_NO_QUERY])
def delete_account(call: Caller_, project_id: str, account_id: str) -> Response:
    """Its keys end with it."""
    found = people.get_service_account(call.platform, call.caller, project_id, account_id)
    people.remove_service_account(call.platform, call.caller, found)
    call.parts.keyring.forget_all()
    return removed(account_id, "organization.project.service_account")


@router.post(
    _ACCOUNT + "/api_keys",
    summary="Make a key for a service account",
    openapi_extra=documented(body=AccountKeyCreate),
    dependencies=[_NO_QUERY],
)
async def create_account_key(call: Caller_, project_id: str, account_id: str) -> Response:
    """Its `value` is shown this once."""
    asked = await body_of(call, AccountKeyCreate)

    def make() -> dict[str, Any]:
        account = people.get_service_account(call.platform, call.caller, project_id, account_id)
        return _account_key(call, account, asked)

    return answer(await to_thread.run_sync(make))


def _account_key(call: Call, account: ServiceAccount, asked: AccountKeyCreate) -> dict[str, Any]:
    new = NewKey(
        asked.name or f"Key of {account.name}"[:200],
        asked.expires_in_seconds,
        None if asked.scopes is None else tuple(asked.scopes),
        OwnerKind.SERVICE_ACCOUNT,
        account.id,
    )
    key, secret = keys.create_key_for(call.platform, call.caller, account.project_id, new)
    return {
        "id": key.id,
        "object": "organization.project.service_account.api_key",
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "value": secret,
    }


def _account(account: ServiceAccount) -> dict[str, Any]:
    return {
        "id": account.id,
        "object": "organization.project.service_account",
        "name": account.name,
        "role": account.role,
        "created_at": account.created_at,
    }


def _admin_key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "organization.admin_api_key",
        "name": key.name,
        "redacted_value": key.redacted,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "owner": {
            "type": "user",
            "object": "organization.user",
            "id": key.organization_id,
            "name": "admin",
            "created_at": key.created_at,
            "role": "owner",
        },
    }


class _Shaper:
    """Shapes the keys of one project; owners are looked up once."""

    def __init__(self, call: Call, project_id: str) -> None:
        members = people.list_members(call.platform, call.caller, project_id)
        accounts = people.list_service_accounts(call.platform, call.caller, project_id)
        self._users = {member.user.id: member for member in members}
        self._accounts = {account.id: account for account in accounts}

    def __call__(self, key: ApiKey) -> dict[str, Any]:
        return {
            "id": key.id,
            "object": "organization.project.api_key",
            "name": key.name,
            "redacted_value": key.redacted,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
            "owner": self._owner(key),
            "owner_project_access": "active",
            "afina": {"kind": key.kind.value, "scopes": key.scopes},
        }

    def _owner(self, key: ApiKey) -> dict[str, Any]:
        account = self._accounts.get(key.owner_id or "")
        if account is not None:
            owner = {
                "id": account.id,
                "name": account.name,
                "role": account.role,
                "created_at": account.created_at,
            }
            return {"type": "service_account", "service_account": owner}
        member = self._users.get(key.owner_id or "")
        if member is None:
            return {}
        owner = {
            "id": member.user.id,
            "name": member.user.name,
            "email": member.user.email,
            "role": member.role,
            "created_at": member.added_at,
        }
        return {"type": "user", "user": owner}
