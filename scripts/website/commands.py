"""Write the page of the command line, from the help texts of its commands."""

import re
from typing import Any


def commands_page() -> str:
    """Return the Markdown: the help of each command, with its options as a list."""
    import click

    from gpunn.cli.program import cli as main

    parts = [
        "# Command line",
        "Every command has `--help`, which says what stands here. Options come before or after what is named.",
    ]
    context = click.Context(main, info_name="gpunn")
    parts.append(_options(main, context))
    for name in main.list_commands(context):
        command: Any = main.get_command(context, name)
        inner = click.Context(command, info_name=f"gpunn {name}", parent=None)
        usage = " ".join(command.collect_usage_pieces(inner))
        parts += [f"## gpunn {name} {{: #{name} }}", f"```sh\ngpunn {name} {usage}\n```", _prose(command.help or ""),
                  _options(command, inner)]  # fmt: skip
    return "\n\n".join(filter(None, parts)) + "\n"


def _options(command: Any, context: Any) -> str:
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if parameter.param_type_name == "option" else None
        if record is not None and parameter.name != "help":
            lines.append(f"- `{record[0]}`: {_inline(record[1])}")
    return "\n".join(lines)


def _prose(text: str) -> str:
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("\b"):
            blocks.append("```text\n" + block.removeprefix("\b").strip("\n") + "\n```")
        else:
            blocks.append(_inline(" ".join(block.split())))
    return "\n\n".join(blocks)


def _inline(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    escape = re.compile(r"([\\*_\[\]<>{}|#$~])")
    return "".join(
        part if part.startswith("`") else escape.sub(lambda found: f"&#{ord(found[1])};", part) for part in parts
    )
