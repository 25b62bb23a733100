"""Options that several commands share, in groups. Each field is an option: its name, type, default and help."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import typer

from florence2.cli.exits import CommandError
from florence2.options import GENERATION_OPTIONS, Option, TaskOptions

DEFAULT_URL: Final = "localhost:8001"
URL_VARIABLE: Final = "FLORENCE2_URL"

_SERVER: Final = "Server"
_OUTPUT: Final = "Output"
_GENERATION: Final = "Generation"
_ALIASES: Final[Mapping[str, str]] = {"num_beams": "--beams"}

Group: TypeAlias = Callable[..., Any]
"""A function, or a dataclass: its parameters are options of a command."""


@dataclass(frozen=True)
class Images:
    """The images of a command."""

    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Image files; - reads one image from standard input.")
    ]


@dataclass(frozen=True)
class ServerOptions:
    """Where requests are answered: by servers, or in this process."""

    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="HOST:PORT",
            envvar=URL_VARIABLE,
            help=f"Triton's gRPC port; repeat it for several replicas. Default: {DEFAULT_URL}.",
            rich_help_panel=_SERVER,
            show_default=False,
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|ID",
            help="Answer in this process with a checkpoint, without a server. Needs florence2-triton-server.",
            rich_help_panel=_SERVER,
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --checkpoint: cpu, cuda:1, ...", rich_help_panel=_SERVER),
    ] = None
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="For each image, retries included.", rich_help_panel=_SERVER)
    ] = 60.0
    model: Annotated[str, typer.Option(metavar="NAME", help="The model's name in Triton.", rich_help_panel=_SERVER)] = (
        "florence2"
    )
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="NAME=VALUE", help="gRPC metadata, e.g. an access key.", rich_help_panel=_SERVER
        ),
    ] = None
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.", rich_help_panel=_SERVER)] = False
    tls_root_certificates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trust these authorities (PEM). Implies --tls.", rich_help_panel=_SERVER),
    ] = None
    tls_private_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Client key for mutual TLS (PEM).", rich_help_panel=_SERVER)
    ] = None
    tls_certificate_chain: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Client certificate for mutual TLS (PEM).", rich_help_panel=_SERVER),
    ] = None
    tls_server_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name in the server's certificate, if not the url's.", rich_help_panel=_SERVER
        ),
    ] = None


@dataclass(frozen=True)
class AdapterOption:
    """The adapter that answers."""

    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Answer with this adapter of the server; with --checkpoint, NAME=FOLDER.",
            rich_help_panel=_SERVER,
        ),
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """Where answers go."""

    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each image.", rich_help_panel=_OUTPUT)
    ] = False
    draw: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER", help="Draw the answer: to a file, or into a folder.", rich_help_panel=_OUTPUT
        ),
    ] = None
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Images in flight at the same time.", rich_help_panel=_OUTPUT)
    ] = 16


@dataclass(frozen=True)
class ItemOptions:
    """Which items of an answer are kept, e.g. which detections."""

    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out items with a lower score.", rich_help_panel=_OUTPUT),
    ] = None
    max_items: Annotated[
        int | None, typer.Option(min=1, help="Keep this many items with the highest scores.", rich_help_panel=_OUTPUT)
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Keep only items with this label; may be repeated.", rich_help_panel=_OUTPUT),
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that are given, as keywords of the client's methods and of `filtered`."""
        values = {"min_score": self.min_score, "max_items": self.max_items, "labels": self.label or None}
        return {name: value for name, value in values.items() if value is not None}


def generation_options(**values: Any) -> TaskOptions:
    """The generation options of the command line; its parameters are those of `GENERATION_OPTIONS`."""
    if (early := values.get("early_stopping")) in _FLAGS:
        values["early_stopping"] = _FLAGS[early]
    return cast("TaskOptions", {name: value for name, value in values.items() if value is not None})


def header_pairs(headers: list[str] | None) -> dict[str, str]:
    """The names and values of `--header`.

    Raises:
        CommandError: one has no `=`. The message does not show it, because it may be a password.
    """
    pairs = [header.partition("=") for header in headers or ()]
    if not all(name and separator for name, separator, _ in pairs):
        raise CommandError("--header: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


_FLAGS: Final[Mapping[Any, bool]] = {"true": True, "false": False}


def _generation_parameter(option: Option) -> inspect.Parameter:
    flag = f"--{option.name.replace('_', '-')}"
    flags = [flag, *([_ALIASES[option.name]] if option.name in _ALIASES else [])]
    value_type: Any = option.type
    text = f"{option.doc.partition('. ')[0].rstrip('.')}."
    if option.choices is not None:
        value_type, text = Literal["true", "false", "never"], "When beam search stops."
    elif option.type is bool:
        flags = [f"{flag}/--no-{flag[2:]}"]
        text = "Keep the token <s> out of the answer."
    else:
        text = f"{text} {option.least} to {option.most}." if not isinstance(option.most, str) else text
    info = typer.Option(*flags, help=text.replace("`", ""), rich_help_panel=_GENERATION)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value_type | None, info]
    )


generation_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # where inspect looks for it
    [_generation_parameter(option) for option in GENERATION_OPTIONS.values()]
)
