"""``telestream keys create|list|revoke``: API keys, which only PostgreSQL knows, as hashes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from telestream_cli.access import DEFAULT_STATE_DIR, StateDir
from telestream_devstack.state import load
from telestream_domain import TelestreamError
from telestream_opstore import ROLES, ApiKey, create_key, list_keys, revoke_key

Postgres = Annotated[
    str | None, typer.Option(envvar="TELESTREAM_POSTGRES", help="PostgreSQL DSN; by default the embedded stack's.")
]
Role = Annotated[list[str], typer.Option("--role", help=f"What it may do: {', '.join(ROLES)}. May be given again.")]
Source = Annotated[list[str], typer.Option("--source", help="Whom it may send for, '*' is all. May be given again.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]

DEFAULT_POSTGRES = "postgresql://telestream@127.0.0.1:18032/telestream"


@dataclass(frozen=True, slots=True)
class _Shown:
    key: ApiKey

    def as_json(self) -> dict[str, Any]:
        key = self.key
        return {
            "id": key.id,
            "name": key.name,
            "roles": sorted(key.roles),
            "sources": sorted(key.sources),
            "created_at": key.created_at.isoformat(),
            "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        }

    def line(self) -> str:
        key = self.key
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "in use"
        return (
            f"{key.id:>5}  {key.name:<24} {','.join(sorted(key.roles)):<36} {','.join(sorted(key.sources)):<24} {state}"
        )


def _dsn(postgres: str | None, state_dir: Any) -> str:
    if postgres:
        return postgres
    stack = load(state_dir)
    member = None if stack is None else stack.members.get("postgres")
    return DEFAULT_POSTGRES if member is None else member.url


def register(app: typer.Typer) -> None:
    """Add ``keys`` to the command."""
    group = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
    app.add_typer(group, name="keys")

    @group.command(epilog="Example: telestream keys create msc-1 --role ingest --source msc-1")
    def create(
        name: Annotated[str, typer.Argument(help="Whom the key is for.")],
        role: Role,
        source: Source,
        postgres: Postgres = None,
        state_dir: StateDir = DEFAULT_STATE_DIR,
        as_json: AsJson = False,
    ) -> None:
        """Make a key and print it: this is the only time it can be seen."""
        key, row = create_key(_dsn(postgres, state_dir), name, role, source)
        if as_json:
            typer.echo(json.dumps({"key": key, **_Shown(row).as_json()}))
        else:
            typer.echo(key)

    @group.command("list", epilog="Example: telestream keys list --json")
    def list_all(postgres: Postgres = None, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
        """Show all keys, revoked ones too, never the keys themselves."""
        rows = [_Shown(row) for row in list_keys(_dsn(postgres, state_dir))]
        if as_json:
            typer.echo(json.dumps([row.as_json() for row in rows]))
            return
        for row in rows:
            typer.echo(row.line())

    @group.command(epilog="Example: telestream keys revoke 7")
    def revoke(
        key_id: Annotated[int, typer.Argument(metavar="ID", help="The key's id, as `telestream keys list` shows it.")],
        postgres: Postgres = None,
        state_dir: StateDir = DEFAULT_STATE_DIR,
        as_json: AsJson = False,
    ) -> None:
        """Make a key worthless, everywhere in less than five seconds."""
        row = revoke_key(_dsn(postgres, state_dir), key_id)
        if row is None:
            raise TelestreamError(f"there is no key with the id {key_id}; `telestream keys list` shows them")
        shown = _Shown(row)
        typer.echo(json.dumps(shown.as_json()) if as_json else shown.line())
