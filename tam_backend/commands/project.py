"""``tam project create``: a Label Studio project that is ready for annotators."""

from __future__ import annotations

import argparse
import os
from typing import Any
from urllib.parse import urlsplit

from tam_backend.commands.studio import EPILOG, add_connection_options, connect, resumable
from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.instances import Vocabulary, labels_of
from tam_backend.labelstudio.layouts import CONTROLS, labeling_config, project_settings
from tam_backend.labelstudio.projects import Json, ProjectClient
from tam_backend.settings import Settings

_DEFAULT_BACKEND = "http://localhost:9090"

_EPILOG = f"""\
examples:
  Up to four people and a ball, each with labels of its own (Person 1 ... Person 4, Ball):
      tam project create "Street" --label Person --label Ball --instances Person=4
  Look first: prints the configuration, and changes nothing.
      tam project create "Street" --label Person --dry-run
  The backend is not on this machine, or not on port 9090:
      tam project create "Street" --label Person --backend http://backend.internal:9090/SECRET

controls (--control):
{"".join(f"  {name:10} {text}{chr(10)}" for name, text in CONTROLS.items())}
A project of this name that is there already keeps its settings; what is missing (the connection to the backend) is
added. So the command can be run again.

{EPILOG}"""

_BY_HAND = """\
What each annotator has to switch on, once in each browser (Label Studio has no setting for it):
  1. Open a task. At the bottom of the page: Auto-Annotation on.
  2. Beside it, then visible: Auto-Accept Suggestions on.
Then: the magenta point tool, a label's key, a click on the object."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "project",
        help="make a Label Studio project that is ready for annotators",
        description="Label Studio projects for this backend.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    create = actions.add_parser(
        "create",
        help="make a project: labels, settings, connection to the backend",
        description="Make a Label Studio project with the right labeling configuration and settings, and connect this\n"
        "backend to it for smart clicks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    create.add_argument("name", metavar="NAME", help="title of the project, 3 to 50 characters")
    create.add_argument(
        "--label", action="append", default=[], metavar="CLASS", help="a class to label; may be given many times"
    )
    create.add_argument(
        "--instances", action="append", default=[], type=_parse_instances, metavar="CLASS=N",
        help="several objects of a class: N labels, CLASS 1 to CLASS N, which exports turn into class and track id",
    )  # fmt: skip
    create.add_argument(
        "--control", choices=list(CONTROLS), default="bitmask", help="what people draw (default: bitmask); see below"
    )
    create.add_argument(
        "--annotators",
        type=_parse_annotators,
        default=1,
        metavar="N",
        help="people who annotate each task (default: 1)",
    )
    create.add_argument(
        "--backend", metavar="URL",
        help="address of `tam serve` as Label Studio reaches it (default: TAM_PUBLIC_URL with TAM_SECRET_PATH, else "
        f"{_DEFAULT_BACKEND}); none: do not connect one. With basic auth also set TAM_BASIC_AUTH_USER and _PASSWORD",
    )  # fmt: skip
    create.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    add_connection_options(create)


def run(args: argparse.Namespace) -> int:
    """Make the project and print what is left to do. Raises TamError."""
    if not 3 <= len(args.name) <= 50:
        raise BadInput(f"the name {args.name!r} has {len(args.name)} characters; Label Studio takes 3 to 50")
    for index, (name, _) in enumerate(args.instances):
        if name in (n for n, _ in args.instances[:index]):
            raise BadInput(f"--instances {name} is given twice")
    labels = labels_of(args.label, dict(args.instances))
    config = labeling_config(labels, args.control)
    settings = Settings.from_env(
        {k: v for k, v in os.environ.items() if k.startswith(("TAM_BASIC_AUTH", "TAM_SECRET", "TAM_PUBLIC"))}
    )
    backend = _backend_url(args, settings)
    client = connect(args)
    with resumable():
        return _create(client, args, labels, config, backend, settings)


def _create(
    client: ProjectClient,
    args: argparse.Namespace,
    labels: tuple[str, ...],
    config: str,
    backend: str,
    settings: Settings,
) -> int:
    there = client.projects_called(args.name)
    if len(there) > 1:
        raise BadInput(f"{len(there)} projects are called {args.name!r} already; choose another name")
    if there and there[0].get("label_config", "").strip() != config.strip():
        raise BadInput(
            f"there is a project {args.name!r} ({there[0]['id']}) with another labeling configuration. Choose another "
            "name, or change that one in Label Studio: Settings > Labeling Interface"
        )
    if args.dry_run:
        print(f"Nothing is changed (--dry-run). On {client.connection.url}:")
        if there:
            print(f"  project {there[0]['id']}, {args.name!r}, is there already")
        else:
            print(f"  a project {args.name!r} would be made, with this labeling configuration:\n{config}")
        print(f"  backend to connect: {backend or 'none'}")
        return 0
    if there:
        project, how = there[0], "is there already"
    else:
        fields = {"title": args.name, "label_config": config, **project_settings(labels, args.control, args.annotators)}
        project, how = client.create_project(fields), "made"
    number = int(project["id"])
    print(f"project {number}, {args.name!r}: {how}\n  {client.connection.url}/projects/{number}/data")
    _print_labels(labels)
    if backend:
        _connect_backend(client, number, backend, settings)
        print(_BY_HAND)
    elif args.control == "rectangle":
        print("No backend is connected: boxes come from `tam export --format video-rectangle` of a project with masks.")
    return 0


def _print_labels(labels: tuple[str, ...]) -> None:
    vocabulary = Vocabulary(labels)
    for category in vocabulary.categories:
        tracks = vocabulary.of_category(category)
        names = ", ".join(i.label for i in tracks)
        print(f"  class {category}: {len(tracks)} object{'s' * (len(tracks) > 1)} ({names})")


def _connect_backend(client: ProjectClient, project: int, url: str, settings: Settings) -> None:
    """Connect the backend and its webhook as far as they are not. Raises LabelStudioError if it cannot be used."""
    fields: Json = {"url": url, "title": "Track anything", "is_interactive": True}
    if settings.basic_auth_user:
        fields |= {"auth_method": "BASIC_AUTH", "basic_auth_user": settings.basic_auth_user}
        fields |= {"basic_auth_pass": settings.basic_auth_password}
    known = [b for b in client.backends(project) if str(b.get("url", "")).rstrip("/") == url]
    if known and known[0].get("is_interactive"):
        print(f"  backend {_shown(url)}: is connected already")
    else:
        try:
            if known:
                client.change_backend(int(known[0]["id"]), {"project": project, **fields})
            else:
                client.connect_backend(project, fields)
        except LabelStudioError as e:
            raise LabelStudioError(
                f"the project is there, but the backend is not connected: {e}\nIs `tam serve` running, and is "
                f"{_shown(url)} its address as Label Studio reaches it? Label Studio refuses private addresses unless "
                "it was started with ML_BLOCK_LOCAL_IP=false. Then run this command again"
            ) from e
        print(f"  backend {_shown(url)}: connected, for smart clicks")
    hook = f"{url}/webhook"
    if not any(h.get("url") == hook for h in client.webhooks(project)):
        try:
            client.add_webhook(project, hook)
        except LabelStudioError as e:
            print(
                f"  NOTE: Label Studio refuses a webhook to the backend ({e}). Videos then get their frames when "
                "somebody opens them. Start Label Studio with SSRF_PROTECTION_ENABLED=false, and give the backend a "
                "name with a dot"
            )
    if not client.legacy_tokens_enabled():
        print(
            "  NOTE: legacy tokens are off here, so the backend needs a token of its own: start it with "
            "TAM_LABEL_STUDIO_URL and TAM_LABEL_STUDIO_TOKEN (docs/media.md)"
        )


def _backend_url(args: argparse.Namespace, settings: Settings) -> str:
    """Without a slash at its end; "" for none."""
    given = args.backend
    if given is None and args.control == "rectangle":
        return ""
    if given is None:
        given = settings.public_url or _DEFAULT_BACKEND
        if settings.secret_path:
            given = f"{given}/{settings.secret_path}"
    if given.lower() == "none":
        return ""
    if args.control == "rectangle":
        raise BadInput("--backend cannot go with --control rectangle: Label Studio sends no clicks on a <Video>")
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadInput(f"--backend {given!r} is not an address such as http://localhost:9090")
    return given.rstrip("/")


def _shown(url: str) -> str:
    """The address without its path, which may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _parse_instances(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not (equals and name and number.isdecimal() and 1 <= int(number) <= 255):
        raise argparse.ArgumentTypeError(f"{text!r} is not CLASS=N, such as Person=4")
    return name, int(number)


def _parse_annotators(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of people from 1 to 100")
    return int(text)
