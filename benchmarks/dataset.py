"""From nothing to an exported data set of real videos, end to end: commands, a real Label Studio, a real browser.

Makes a project, imports the videos as clips, clicks objects in the browser, lets the backend track them across the
borders of clips, submits what is there, exports in every format, and compares each export with what was submitted.

    .venv/bin/python benchmarks/dataset.py a.mp4 b.mp4 --clip 40 --end 69 --label Ball --label Part --instances Part=2 \
        --click "a:5:Ball:50.8,44.7" --click "b:0:Part 1:31,68"

Starts Label Studio and the backend (embedded engine) for itself, in a folder that is removed. With --url and --backend
it uses those that are running; then TAM_LABEL_STUDIO_TOKEN and LABEL_STUDIO_LOGIN (user:password) say who it is.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from tamdev.processes import free_port  # noqa: E402
from tamdev.rest import LabelStudio, answers  # noqa: E402
from tamdev.servers import Account, start_backend, start_label_studio  # noqa: E402

from tests.browser.dataset import Click, Team, accept_all, click_all, frames_of, judge, name_of  # noqa: E402
from tests.browser.editor import Editor  # noqa: E402


def click(text: str) -> Click:
    """``VIDEO:FRAME:LABEL:X,Y``, X and Y in percent of the picture."""
    video, frame, label, at = text.split(":")
    x, y = map(float, at.split(","))
    return Click(video, int(frame), label, x, y)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--clip", type=int, default=100)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--label", action="append", default=[], required=True)
    parser.add_argument("--instances", action="append", default=[])
    parser.add_argument("--control", choices=["bitmask", "brush"], default="bitmask")
    parser.add_argument("--click", action="append", type=click, required=True, metavar="VIDEO:FRAME:LABEL:X,Y")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    parser.add_argument("--url", help="a Label Studio that is running")
    parser.add_argument("--backend", help="the backend that is running")
    args = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dataset-")))
        if args.url:
            user, _, password = os.environ["LABEL_STUDIO_LOGIN"].partition(":")
            account = Account(user, password, os.environ["TAM_LABEL_STUDIO_TOKEN"])
            rest, backend = LabelStudio(args.url, account.token), args.backend
        else:
            account = Account("lead@example.com", secrets.token_hex(8), secrets.token_hex(20))
            studio, rest = start_label_studio(root / "label-studio", free_port(), account, root / "label-studio.log")
            stack.enter_context(studio)
            studio.wait_until(lambda: answers(f"{rest.url}/health") and rest.ready(), 900)
            port = free_port()
            options = {"TAM_ENGINE": "embedded"}
            stack.enter_context(start_backend(root / "backend", port, rest, account, root / "backend.log", options))
            backend = f"http://127.0.0.1:{port}"
        editor = stack.enter_context(Editor(rest.url, [backend]))
        editor.call("login", account.username, account.password)

        def picture(name: str) -> None:
            if args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                editor.call("screenshot", str(args.pictures / f"{name}.png"))

        def passed(step: str) -> None:
            print(f"{time.monotonic() - began:6.1f} s  {step}", flush=True)

        passed("Label Studio and the backend are running")
        team = Team(rest.url, account.token, backend, editor, rest.get, picture)
        labels = [o for name in args.label for o in ("--label", name)]
        labels += [o for text in args.instances for o in ("--instances", text)]
        title = f"Data set {secrets.token_hex(3)}"
        team.tam("project", "create", title, *labels, "--control", args.control, "--backend", backend)
        project = team.project(title)
        team.tam("import", project, *args.videos, "--clip", args.clip, "--overlap", 1, "--end", args.end)
        tasks = team.tasks(project)
        for task in tasks:
            print(f"          task {task['id']}: {name_of(task)}, frames {frames_of(task)[0]} to {frames_of(task)[-1]}")
        passed(f"{len(tasks)} tasks")
        click_all(team, project, args.click, through=args.control == "brush")
        passed(f"{len(args.click)} clicks, tracked in all clips")
        accepted = accept_all(team, project)
        passed(f"submitted: {len(accepted)} masks of {len({k[:2] for k in accepted})} objects")
        clicked = {(c.video, c.label): c.frame for c in args.click}
        for video, label in sorted({k[:2] for k in accepted}):
            there = sorted(k[2] for k in accepted if k[:2] == (video, label))
            print(f"          {video}, {label}: {len(there)} frames, {there[0]} to {there[-1]}", end="")
            print(f", clicked on {clicked[video, label]}" if (video, label) in clicked else "")
        for name, count in judge(team, project, accepted, root / "exports").items():
            print(f"          {name:22} {count} equal" if "by" in name or name not in ("overlay", "video-rectangle")
                  else f"          {name:22} {count} files")  # fmt: skip
        passed("exported in every format: each mask equals the one that was submitted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
