"""``telestream replay start|status|compare|activate|rollback|drop``: derive anew, look, decide."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from telestream_cli import replay_view
from telestream_cli.access import ApiKey, ApiUnreachable, AsJson, QueryApi, StateDir, find_access, patiently
from telestream_cli.replay_api import GateFailed, Generation, ReplayApi
from telestream_domain import TYPES, RuleChanges, TelestreamError

DEFAULT_STATE_DIR = Path(".telestream")
PATIENCE_S = 180.0
"""An API that does not answer is waited for so long: the whole stack may be starting again."""
_POLL_S = 1.0
_GONE = ("DROPPING", "DROPPED")

Number = Annotated[int, typer.Argument(metavar="N", help="The generation, as `telestream replay status` shows it.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Types = Annotated[str | None, typer.Option(help="cdr, network or both, comma-separated; all of it by default.")]


def register(app: typer.Typer) -> None:
    """Add ``replay`` to the command."""
    group = typer.Typer(
        help="Derive everything anew from the log beside what people see, compare, and switch when it is good.",
        no_args_is_help=True,
    )
    app.add_typer(group, name="replay")
    group.command(
        epilog="Examples: telestream replay start --reason 'late customers' --wait; "
        "telestream replay start --types cdr --rules rules.toml --sample 1d --compare-only --reason 'rehearse rules'"
    )(start)
    group.command(epilog="Examples: telestream replay status; telestream replay status 2 --watch")(status)
    group.command(epilog="Example: telestream replay compare 2 --with 1 --by rule")(compare)
    group.command(epilog="Example: telestream replay activate 2 --reason 'customers are complete'")(activate)
    group.command(epilog="Example: telestream replay rollback --reason 'wrong plan prices'")(rollback)
    group.command(epilog="Example: telestream replay drop 1 --reason 'generation 2 has proved itself' --yes")(drop)


def start(
    reason: Reason,
    types: Types = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="OFFSET|TIME", help="Derive from here on; all there is by default.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Changed rules, a TOML file.", metavar="FILE")
    ] = None,
    sample: Annotated[str | None, typer.Option(metavar="1d", help="Only so much, the last of it.")] = None,
    compare_only: Annotated[bool, typer.Option("--compare-only", help="A rehearsal: it ends by itself.")] = False,
    reference_of: Annotated[
        int | None, typer.Option(metavar="N", help="Judge with the reference data that generation N judged with.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has caught up (or ended).")] = False,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Begin a replay: a new generation, derived beside the one that people see. One at a time for each type."""
    asked: dict[str, Any] = {"reason": reason, "compare_only": compare_only} | _types(types)
    given = {"from": since, "rules": _text(rules), "sample": sample, "reference_of": reference_of}
    asked |= {name: value for name, value in given.items() if value is not None}
    api = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key))
    made = api.start(asked)
    number = made["generation"]
    if not as_json:
        typer.echo(f"generation {number} begins: {', '.join(made['types'])}")
    if wait:
        made = _watch(api, number, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(made))
    elif wait:
        rest = "compare" if made.get("compare_only") else "compare, activate or drop"
        typer.echo(f"generation {number} is ready to {rest}: telestream replay compare {number}")
    else:
        typer.echo(f"see how far it is with: telestream replay status {number} --watch")
    if made["state"] in _GONE:
        raise TelestreamError(f"generation {number} was dropped meanwhile")


def status(
    generation: Annotated[int | None, typer.Argument(metavar="[N]", help="This one in full; all by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until it has caught up (with N).")] = False,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the generations: how far each is, who sees it, what it costs. With --watch and --json: a line a second."""
    if watch and generation is None:
        raise typer.BadParameter("--watch wants a generation: telestream replay status N --watch")
    api = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key))
    console = _console()
    if generation is None:
        found = [row if row["state"] in _GONE else api.one(row["generation"]) for row in api.all()]
        if as_json:
            typer.echo(json.dumps(found))
            return
        console.print(replay_view.generations_table(found))
        for line in replay_view.problems(found):
            console.print(line, markup=False, highlight=False)
        return
    one = api.one(generation)
    if not as_json:
        console.print(replay_view.story(one), highlight=False)
    if watch:
        _watch(api, generation, quiet=False, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps(one))
    else:
        with replay_view.watching(console) as show:
            show(one)


def compare(
    generation: Number,
    other: Annotated[int | None, typer.Option("--with", metavar="M", help="By default what people see.")] = None,
    by: Annotated[str, typer.Option(metavar="day|region|source|rule|kpi", help="What to set side by side.")] = "day",
    record_type: Annotated[str | None, typer.Option("--type", help="cdr or network; both by default.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only events from here on.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only events before.")] = None,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two generations, by how much, and why where it can be known."""
    given = {"with": other, "by": by, "type": record_type, "from": since, "to": until}
    api = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key))
    found = api.compare(generation, {name: str(value) for name, value in given.items() if value is not None})
    if as_json:
        typer.echo(json.dumps(found))
        return
    from telestream_cli.replay_compare import show

    show(found, _console())


def activate(
    generation: Number,
    reason: Reason,
    types: Types = None,
    force: Annotated[bool, typer.Option("--force", help="Although the quality gate fails.")] = False,
    keep_before: Annotated[
        bool,
        typer.Option("--keep-before", help="It begins later than what is seen: keep that for what lies before."),
    ] = False,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Let everybody see this generation, in one step; what was seen before stays, and `rollback` goes back to it."""
    asked = {"reason": reason, "force": force, "keep_before": keep_before} | _types(types)
    try:
        found = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key)).activate(generation, asked)
    except GateFailed as failed:
        if failed.gate and not as_json:
            Console(stderr=True).print(replay_view.gate_table(failed.gate))
        raise failed.said from None
    if as_json:
        typer.echo(json.dumps(found))
        return
    if found.get("gate"):
        _console().print(replay_view.gate_table(found["gate"]))
    _say_active(found)


def rollback(
    reason: Reason,
    types: Types = None,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Let everybody see what was seen before the last activation."""
    found = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key)).rollback(
        {"reason": reason} | _types(types)
    )
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _say_active(found)


def drop(
    generation: Number,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing of it is left.")] = False,
    query_api: QueryApi = None,
    api_key: ApiKey = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Stop a generation's workers and remove all of it: topics, rows, positions. The raw log stays."""
    if not yes and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here whether to drop it: give --yes")
    api = ReplayApi(find_access(state_dir, query_api=query_api, api_key=api_key))
    if not yes:
        found = api.one(generation)
        rows = replay_view.costs_of(found).get("rows")
        typer.confirm(
            f"drop generation {generation} ({found['reason']}){'' if rows is None else f' with {rows:,} rows'}?",
            abort=True,
        )
    found = api.drop(generation, reason)
    if wait:
        found = _until_dropped(api, generation)
    if as_json:
        typer.echo(json.dumps(found))
    elif found["state"] == "DROPPED":
        typer.echo(f"generation {generation} is dropped")
    else:
        typer.echo(f"generation {generation} is being dropped; telestream replay status shows when it is")


def _types(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names or set(names) - set(TYPES):
        raise typer.BadParameter(f"--types is {', '.join(TYPES)} or both, not {given!r}")
    return {"types": names}


def _text(rules: Path | None) -> str | None:
    if rules is None:
        return None
    try:
        text = rules.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise TelestreamError(f"rules cannot be read from {rules}: {err}") from None
    from telestream_contracts import raw_fields  # slow to load

    RuleChanges.parse(text, raw_fields())  # mistakes show here, whether or not the API is there
    return text


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200)


def _say_active(found: dict[str, Any]) -> None:
    for name, number in found["activated"].items():
        typer.echo(f"{name}: generation {number} is seen by all")


def _watch(api: ReplayApi, generation: int, *, quiet: bool, as_json: bool = False) -> Generation:
    """Until there is nothing more to wait for; an API that starts again is waited for."""
    console = Console(stderr=True, quiet=quiet) if quiet or as_json else _console()
    with replay_view.watching(console) as show:
        while True:
            found = _patiently_one(api, generation)
            if as_json:
                typer.echo(json.dumps(found))
            elif not quiet:
                show(found)
            if replay_view.is_done(found):
                return found
            time.sleep(_POLL_S)


def _until_dropped(api: ReplayApi, generation: int) -> Generation:
    while (found := _patiently_one(api, generation))["state"] != "DROPPED":
        time.sleep(_POLL_S)
    return found


def _patiently_one(api: ReplayApi, generation: int) -> Generation:
    try:
        return api.one(generation)
    except ApiUnreachable as err:
        typer.echo(f"{err}: waiting for it", err=True)
        return patiently(lambda: api.one(generation), PATIENCE_S)
