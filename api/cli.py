"""The command line: `hub serve`, and (`commands/`) operations on a running hub and on its store."""

from __future__ import annotations

import argparse
import os
import sys

from api.commands import backup, replay, restore, running
from hub import __version__
from hub.config import OPTIONS, InvalidSetting, load


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return int(args.run(args))
    except InvalidSetting as error:
        print(f"hub: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hub", description="Cocolu Hub: a real-time omnichannel messaging hub.")
    parser.add_argument("--version", action="version", version=f"cocolu-hub {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    serve = commands.add_parser(
        "serve",
        help="run the hub",
        description="Run the hub. Every flag has a HUB_… variable; flags win.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for option in OPTIONS:
        text = f"{option.help} ({option.variable})"
        if option.default is False:
            serve.add_argument(option.flag, action="store_const", const="true", dest=option.name, help=text)
        else:
            shown = f"{text} [{option.default}]" if option.default is not None else text
            serve.add_argument(option.flag, dest=option.name, metavar="X", default=argparse.SUPPRESS, help=shown)
    serve.set_defaults(run=_serve)
    for group in (running, backup, restore, replay):
        group.register(commands)
    return parser


def _serve(args: argparse.Namespace) -> int:
    flags = {option.name: getattr(args, option.name, None) for option in OPTIONS}
    config = load(flags, os.environ)
    from api.serve import serve

    return serve(config)


if __name__ == "__main__":
    sys.exit(main())
