"""`pacslite user`: the accounts. Passwords are asked for, or read from standard input; never arguments, which everybody can list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pacslite.cli.options import json_option, load, open_accounts, origin, say, settings_options

if TYPE_CHECKING:
    from pacslite.core.users import Account, Change

_ROLES = click.Choice(["admin", "clinician", "viewer", "service"])
_group = click.option("--group", "groups", multiple=True, metavar="NAME", help="A group the user is in; may be repeated.")


@click.group()
def user() -> None:
    """Keep the accounts of users. Changes count at once in a running server."""


@user.command()
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True, help="What the user is for.")
@_group
@click.option("--no-password", is_flag=True, help="The user logs in by API tokens, or elsewhere.")
@settings_options
@json_option
def add(name: str, role: str, groups: tuple[str, ...], no_password: bool, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Add the user NAME. The password is asked for, or is the first line of standard input."""
    from pacslite.core import users
    from pacslite.core.access import Role

    accounts = open_accounts(load(config_file, data))
    password = None if no_password else _password()
    made = users.create(accounts, name, password, Role(role), groups, origin())
    say(as_json, _plain(made), f"{made.username} may log in as {made.role}.")


@user.command("list")
@settings_options
@json_option
def list_command(config_file: str | None, data: str | None, as_json: bool) -> None:
    """List the users."""
    from pacslite.core import users

    found = users.listed(open_accounts(load(config_file, data)))
    lines = [
        f"{one.username:<24} {one.role:<10} {'disabled ' if one.disabled else ''}{', '.join(sorted(one.groups))}".rstrip() for one in found
    ]
    say(as_json, [_plain(one) for one in found], "\n".join(lines) or "There are no users; `pacslite user add NAME --role admin` adds one.")


@user.command()
@click.argument("name")
@settings_options
@json_option
def passwd(name: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Give the user NAME a new password; all logins of the old one end."""
    from pacslite.core.users import Change

    _change(name, lambda: Change(password=_password()), config_file, data, as_json, "has a new password; its logins have ended")


@user.command("set")
@click.argument("name")
@click.option("--role", type=_ROLES, help="What the user is for.")
@_group
@click.option("--no-groups", is_flag=True, help="The user is in no group.")
@settings_options
@json_option
def set_command(
    name: str, role: str | None, groups: tuple[str, ...], no_groups: bool, config_file: str | None, data: str | None, as_json: bool
) -> None:
    """Change role or groups of the user NAME; what is left out stays."""
    from pacslite.core.access import Role
    from pacslite.core.users import Change

    wanted = Change(Role(role) if role else None, groups=() if no_groups else groups or None)
    _change(name, lambda: wanted, config_file, data, as_json, "is changed")


@user.command()
@click.argument("name")
@settings_options
@json_option
def disable(name: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Keep the user NAME out; all its logins end, its tokens do not count."""
    from pacslite.core.users import Change

    _change(name, lambda: Change(disabled=True), config_file, data, as_json, "cannot log in any more")


@user.command()
@click.argument("name")
@settings_options
@json_option
def enable(name: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Let the user NAME in again."""
    from pacslite.core.users import Change

    _change(name, lambda: Change(disabled=False), config_file, data, as_json, "may log in again")


@user.command()
@click.argument("name")
@settings_options
@json_option
def remove(name: str, config_file: str | None, data: str | None, as_json: bool) -> None:
    """Forget the user NAME, with all logins and tokens."""
    from pacslite.core import users

    accounts = open_accounts(load(config_file, data))
    known = users.get_by_name(accounts, name)
    users.remove(accounts, known.id, origin())
    say(as_json, _plain(known), f"{known.username} is forgotten.")


def _change(name: str, wanted: Any, config_file: str | None, data: str | None, as_json: bool, told: str) -> None:
    from pacslite.core import users

    accounts = open_accounts(load(config_file, data))
    known = users.get_by_name(accounts, name)
    change: Change = wanted()
    kept = users.change(accounts, known.id, change, origin())
    say(as_json, _plain(kept), f"{kept.username} {told}.")


def _password() -> str:
    """Asked for twice on a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    return sys.stdin.readline().rstrip("\r\n")


def _plain(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "username": account.username,
        "role": account.role,
        "created_at": account.created_at,
        "disabled": account.disabled,
        "groups": sorted(account.groups),
    }
