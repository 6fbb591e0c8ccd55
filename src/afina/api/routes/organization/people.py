"""/v1/organization/{users,invites} and the users and service accounts of projects."""

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
from afina.api.routes.organization.shared import ListQuery, Texts, body_of, removed, short_page
from afina.domain.accounts import Member
from afina.errors import InvalidRequest, NotFound, UnsupportedField
from afina.service import people
from afina.service.people import Person
from afina.service.refusals import Wire

router = APIRouter(prefix="/v1/organization", tags=["organization"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_LIST = Depends(query(ListQuery))
Id = Annotated[str, Field(max_length=64)]
Email = Annotated[str, Field(max_length=320)]


class InviteProject(Wire):
    """A place in a project that an invited user gets."""

    id: Id
    role: Literal["member", "owner"]


class InviteCreate(Wire):
    """POST /v1/organization/invites."""

    email: Email
    role: Literal["reader", "owner"]
    projects: list[InviteProject] | None = None


class UserUpdate(Wire):
    """POST /v1/organization/users/{id}."""

    role: Literal["owner", "reader"] | None = None
    role_id: str | None = None
    developer_persona: str | None = None
    technical_level: str | None = None


class UserListQuery(ListQuery):
    """GET /v1/organization/users."""

    emails: Texts | None = None


class ProjectUserCreate(Wire):
    """POST /v1/organization/projects/{id}/users."""

    role: Literal["owner", "member"]
    user_id: Id | None = None
    email: Email | None = None


class ProjectUserUpdate(Wire):
    """POST /v1/organization/projects/{id}/users/{user_id}."""

    role: Literal["owner", "member"] | None = None


SHAPES: Final[tuple[type[BaseModel], ...]] = (
    InviteCreate,
    UserUpdate,
    UserListQuery,
    ProjectUserCreate,
    ProjectUserUpdate,
    ListQuery,
)


@router.post(
    "/invites",
    summary="Invite a user",
    openapi_extra=documented(body=InviteCreate),
    dependencies=[_NO_QUERY],
)
async def invite(call: Caller_) -> Response:
    """No mail leaves the machine: the user is in at once, and an admin hands over a key."""
    asked = await body_of(call, InviteCreate)
    places = tuple((place.id, place.role) for place in asked.projects or ())
    if asked.projects is None:
        places = ((call.caller.project_id, "member"),)
    made = await to_thread.run_sync(
        people.add_user, call.platform, call.caller, asked.email, asked.role, places
    )
    return answer(_invite(made))


@router.get("/invites", summary="List invites", openapi_extra=documented(query=ListQuery))
def list_invites(call: Caller_, asked: Annotated[ListQuery, _LIST]) -> Response:
    """Those who were invited, oldest first; all of them have come in."""
    return short_page(people.list_people(call.platform, call.caller), _invite, asked)


@router.get("/invites/{invite_id}", summary="An invite", dependencies=[_NO_QUERY])
def retrieve_invite(call: Caller_, invite_id: str) -> Response:
    """It has been accepted, for whoever is invited is a user at once."""
    return answer(_invite(_invited(call, invite_id)))


@router.delete("/invites/{invite_id}", summary="Take an invite back", dependencies=[_NO_QUERY])
def delete_invite(call: Caller_, invite_id: str) -> Response:
    """An accepted invite cannot be taken back, and here all are accepted: the user is removed."""
    found = _invited(call, invite_id)
    raise InvalidRequest(
        f"The invite {invite_id} has been accepted and cannot be taken back.",
        param="invite_id",
        code="invite_accepted",
        remedy=f"Remove the user: DELETE /v1/organization/users/{found.user.id}.",
    )


@router.get("/users", summary="List users", openapi_extra=documented(query=UserListQuery))
def list_users(
    call: Caller_, asked: Annotated[UserListQuery, Depends(query(UserListQuery))]
) -> Response:
    """Oldest first."""
    wanted = {email.lower() for email in asked.emails or ()}
    found = people.list_people(call.platform, call.caller)
    shown = [person for person in found if not wanted or person.user.email in wanted]
    return short_page(shown, _user, asked)


@router.get("/users/{user_id}", summary="A user", dependencies=[_NO_QUERY])
def retrieve_user(call: Caller_, user_id: str) -> Response:
    """With the projects that the user has a place in."""
    return answer(_user(people.get_person(call.platform, call.caller, user_id)))


@router.post(
    "/users/{user_id}",
    summary="Change a user's role",
    openapi_extra=documented(body=UserUpdate),
    dependencies=[_NO_QUERY],
)
async def update_user(call: Caller_, user_id: str) -> Response:
    """Owner or reader."""
    asked = await body_of(call, UserUpdate)
    for name in ("role_id", "developer_persona", "technical_level"):
        if getattr(asked, name) is not None:
            raise UnsupportedField(f"'{name}' is not supported: use 'role'.", param=name)
    if asked.role is None:
        found = await to_thread.run_sync(people.get_person, call.platform, call.caller, user_id)
        return answer(_user(found))
    changed = await to_thread.run_sync(
        people.change_role, call.platform, call.caller, user_id, asked.role
    )
    return answer(_user(changed))


@router.delete("/users/{user_id}", summary="Remove a user", dependencies=[_NO_QUERY])
def delete_user(call: Caller_, user_id: str) -> Response:
    """The user's keys open nothing any more."""
    people.remove_user(call.platform, call.caller, user_id)
    call.parts.keyring.forget_all()
    return removed(user_id, "organization.user")


@router.post(
    "/projects/{project_id}/users",
    summary="Add a user to a project",
    openapi_extra=documented(body=ProjectUserCreate),
    dependencies=[_NO_QUERY],
)
async def add_member(call: Caller_, project_id: str) -> Response:
    """The user is named by id or by e-mail."""
    asked = await body_of(call, ProjectUserCreate)

    def put() -> Member:
        return people.put_member(
            call.platform,
            call.caller,
            project_id,
            asked.role,
            user_id=asked.user_id,
            email=asked.email,
        )

    return answer(_member(await to_thread.run_sync(put)))


@router.get(
    "/projects/{project_id}/users",
    summary="List a project's users",
    openapi_extra=documented(query=ListQuery),
)
def list_members(call: Caller_, project_id: str, asked: Annotated[ListQuery, _LIST]) -> Response:
    """Oldest first."""
    found = people.list_members(call.platform, call.caller, project_id)
    return short_page(found, _member, asked)


@router.get(
    "/projects/{project_id}/users/{user_id}", summary="A project's user", dependencies=[_NO_QUERY]
)
def retrieve_member(call: Caller_, project_id: str, user_id: str) -> Response:
    """With the role in the project."""
    return answer(_member(people.get_member(call.platform, call.caller, project_id, user_id)))


@router.post(
    "/projects/{project_id}/users/{user_id}",
    summary="Change a project's user",
    openapi_extra=documented(body=ProjectUserUpdate),
    dependencies=[_NO_QUERY],
)
async def update_member(call: Caller_, project_id: str, user_id: str) -> Response:
    """Owner or member."""
    asked = await body_of(call, ProjectUserUpdate)

    def change() -> Member:
        found = people.get_member(call.platform, call.caller, project_id, user_id)
        if asked.role is None:
            return found
        return people.put_member(
            call.platform, call.caller, project_id, asked.role, user_id=found.user.id
        )

    return answer(_member(await to_thread.run_sync(change)))


@router.delete(
    "/projects/{project_id}/users/{user_id}",
    summary="Take a user out of a project",
    dependencies=[_NO_QUERY],
)
def delete_member(call: Caller_, project_id: str, user_id: str) -> Response:
    """The user stays in the organization; the user's keys of the project open nothing any more."""
    people.remove_member(call.platform, call.caller, project_id, user_id)
    call.parts.keyring.forget_all()
    return removed(user_id, "organization.project.user")


def _user(person: Person) -> dict[str, Any]:
    user = person.user
    return {
        "id": user.id,
        "object": "organization.user",
        "name": user.name,
        "email": user.email,
        "role": user.role,
        "added_at": user.added_at,
        "projects": {
            "object": "list",
            "data": [{"id": project, "role": role} for project, role in person.places],
        },
    }


def _invited(call: Call, invite_id: str) -> Person:
    try:
        return people.get_person(call.platform, call.caller, invite_id)
    except NotFound:
        raise NotFound(f"No such invite: {invite_id}", param="invite_id") from None


def _invite(person: Person) -> dict[str, Any]:
    user = person.user
    return {
        "id": user.id,
        "object": "organization.invite",
        "email": user.email,
        "role": user.role,
        "status": "accepted",
        "created_at": user.added_at,
        "accepted_at": user.added_at,
        "expires_at": None,
        "projects": [{"id": project, "role": role} for project, role in person.places],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "id": member.user.id,
        "object": "organization.project.user",
        "name": member.user.name,
        "email": member.user.email,
        "role": member.role,
        "added_at": member.added_at,
    }
