"""The command line: `hub serve`, operations on a running hub, and (`commands/`) on its store."""

from __future__ import annotations

import argparse
import os
import sys

from api.commands import backup, replay, restore
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
    status = commands.add_parser("status", help="show what a running hub is made of")
    status.add_argument("--url", default=os.environ.get("HUB_URL", "http://127.0.0.1:8000"), help="address of the hub")
    status.add_argument("--data-dir", default=os.environ.get("HUB_DATA_DIR", "data"), help="where secret.key is")
    status.set_defaults(run=_status)
    for group in (backup, restore, replay):
        group.register(commands)
    return parser


def _serve(args: argparse.Namespace) -> int:
    flags = {option.name: getattr(args, option.name, None) for option in OPTIONS}
    config = load(flags, os.environ)
    from api.serve import serve

    return serve(config)


def _status(args: argparse.Namespace) -> int:
    from pathlib import Path

    import httpx

    from api.auth import operator_token
    from hub.sealing import Keyring, load_secret

    data_dir = Path(args.data_dir)
    configured = os.environ.get("HUB_SECRET_KEY")
    if not configured and not (data_dir / "secret.key").exists():
        print(f"hub: no secret.key in {data_dir}; give --data-dir or HUB_SECRET_KEY", file=sys.stderr)
        return 1
    token = operator_token(Keyring(load_secret(configured, data_dir)))
    try:
        answer = httpx.get(f"{args.url}/v1/status", headers={"authorization": f"Bearer {token}"}, trust_env=False)
    except httpx.HTTPError as error:
        print(f"hub: no hub answers at {args.url}: {error}", file=sys.stderr)
        return 1
    print(answer.text)
    return 0 if answer.status_code == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
