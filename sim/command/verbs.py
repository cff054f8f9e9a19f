"""The frame of the command: verbs in order, help, ranges of options, and what comes next."""

from collections.abc import Callable
from contextvars import ContextVar
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from cbnn.sim.command.screen import tell_command

VERBS = {
    "Try": ("demo", "report"),
    "Network": ("train", "sensitivity", "compact", "evaluate", "predict", "import", "export"),
    "Explore": ("cycles", "simulate", "fold", "fifos", "sweep"),
    "Hardware": ("generate", "load", "verify", "volume", "synth", "board", "classify"),
}
"""All verbs in the order of work, by the panel of the help that they are in."""
PANELS = {verb: panel for panel, verbs in VERBS.items() for verb in verbs}
CARRIED = ("folding", "input_width", "whole_bytes", "dataset", "data_dir")
"""Options that the next verb gets too."""
UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a wrong word; it has no public name."""
_context: ContextVar[typer.Context | None] = ContextVar("context", default=None)
"""The context of the verb that runs; None where a function is called from elsewhere."""


class Verb(TyperCommand):
    """A verb: its help is shown as it is written, and a wrong word is one sentence."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for part in (self, *self.params):
            for name in ("help", "epilog"):
                if text := getattr(part, name, None):
                    setattr(part, name, escape(text))  # [train] would be taken for markup

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None,
                     **extra: Any) -> Any:
        """Read the words after the verb."""
        return _in_a_sentence(super().make_context, info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        _context.set(ctx)
        return super().invoke(ctx)


class Verbs(TyperGroup):
    """Verbs in the order of work."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None,
                     **extra: Any) -> Any:
        """Read the words before the verb; without any the help is printed."""
        read = super().make_context
        if not args:
            return read(info_name, args, parent, **extra)
        return _in_a_sentence(read, info_name, args, parent, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb."""
        return _in_a_sentence(super().resolve_command, ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs as `VERBS` has them, others as they came."""
        order = list(PANELS)
        return sorted(self.commands, key=lambda name: (*order, name).index(name))


def _in_a_sentence(read: Callable, *args: Any, **extra: Any) -> Any:
    try:
        return read(*args, **extra)
    except UsageError as error:
        reason = error.format_message().rstrip(".")
        raise ValueError(f"{reason}; see {_words_of(error.ctx)} --help") from error


def _words_of(context: Any) -> str:
    """Return the words that call a verb."""
    if context is None or context.parent is None:
        return "cbnn"
    return f"{_words_of(context.parent)} {context.info_name}"


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Binary neural networks with pruned input slices: Verilog, proof, and cycles.")


def verb(name: str, example: str, group: typer.Typer = app) -> Callable[[Callable], Callable]:
    """Make a function a verb, with an example at the end of its help."""
    return group.command(name, cls=Verb, epilog=f"Example: {example}",
                         rich_help_panel=PANELS.get(name))


def verbs(name: str, text: str) -> typer.Typer:
    """Return a group of verbs below a word."""
    group = typer.Typer(cls=Verbs, no_args_is_help=True, rich_markup_mode="rich", help=text)
    app.add_typer(group, name=name, rich_help_panel=PANELS[name])
    return group


def _print_version(asked: bool) -> None:
    if asked:
        print(f"cbnn {version('cbnn')}")
        raise typer.Exit


@app.callback()
def _options(show_version: Annotated[bool, typer.Option(
        "--version", help="Print the version.", is_eager=True, callback=_print_version)] = False) -> None:
    pass


def within(low: float, high: float) -> Callable:
    """Return what raises ValueError where an option's number is not in a range."""
    def check(param: typer.CallbackParam, value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"{param.opts[0]} is {value}; it must be {low:,} to {high:,}")
        return value

    return check


def option(text: str, low: float, high: float) -> Any:
    """Return an option that takes a number in a range."""
    return typer.Option(help=text, callback=within(low, high))


def given(*names: str) -> list[str]:
    """Return those of the verb's parameters that the user gave, as they are written: ``--seed``."""
    context = _context.get()
    if context is None:
        return []
    return [parameter.opts[0] for parameter in context.command.params if parameter.name in names
            and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"]


def refuse(why: str, *names: str) -> None:
    """Raise ValueError where the user gave an option that has no effect, and say why."""
    if found := given(*names):
        raise ValueError(f"{found[0]} has no effect {why}")


def next_step(name: str, *words: object, **changed: object) -> None:
    """Name the verb that comes next on stderr, unless JSON is printed.

    Parameters
    ----------
    words : its arguments
    changed : its options that differ from this verb's, None where one is left out; `CARRIED` ones
        stay as they are
    """
    context = _context.get()
    if context is None or context.params.get("as_json"):
        return
    root: Any = context.find_root().command
    known = {parameter.name: parameter.opts[0] for parameter in root.commands[name].params}
    carried = {key: context.params[key] for key in context.params
               if key in CARRIED and key in known and given(key)}
    options = [word for key, value in (carried | changed).items() if value is not None
               for word in ((known[key],) if value is True else (known[key], value))]
    tell_command([name, *words, *options])
