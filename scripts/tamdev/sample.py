"""The sample: a clip of the video in Label Studio's own package, and a project that is ready to click."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tamdev import ROOT, RUN_DIR, DevError
from tamdev.environment import BACKEND, LABEL_STUDIO
from tamdev.rest import LabelStudio

TITLE = "Track anything: sample"
_FILES = ROOT / "scripts" / "sample"
#: Frames 766 to 865 of 1259 show the opossum riding away from us in one shot; the cuts are at 764 and 870.
_FIRST, _COUNT, _HEIGHT = 766, 100, 480
#: A point on the animal in the clip's first frame, in its pixels.
ANIMAL = (550, 265)


def sample_clip() -> Path:
    """The clip, cut when it is not there yet. Needs both environments."""
    clip = RUN_DIR / "sample" / "opossum.mp4"
    if clip.is_file():
        return clip
    pattern = "lib/python*/site-packages/label_studio/core/static/samples/opossum_snow.mp4"
    source = next(iter(LABEL_STUDIO.path.glob(pattern)), None)
    if source is None:
        raise DevError(f"Label Studio's package has no sample video at {LABEL_STUDIO.path}/{pattern}")
    clip.parent.mkdir(parents=True, exist_ok=True)
    command = [BACKEND.program("python"), ROOT / "scripts" / "cut_clip.py", source, clip]
    done = subprocess.run([*map(str, command), str(_FIRST), str(_COUNT), str(_HEIGHT)], capture_output=True, text=True)
    if done.returncode:
        raise DevError(f"the sample clip could not be cut:\n{done.stderr.strip()}")
    return clip


def ensure_project(label_studio: LabelStudio, backend_url: str) -> int:
    """The id of the sample project; it is created, connected and given the clip when there is none."""
    for project in label_studio.projects():
        if project["title"] == TITLE:
            return int(project["id"])
    print("Creating the sample project ...", flush=True)
    project_id = label_studio.create_project(
        TITLE,
        (_FILES / "label_config.xml").read_text(),
        description="Click an animal on one frame, get its mask on the others. Made by `make run`.",
        expert_instruction=(_FILES / "instructions.html").read_text(),
        show_instruction=True,
        show_collab_predictions=True,
        evaluate_predictions_automatically=False,
        maximum_annotations=1,
        sampling="Sequential sampling",
    )
    try:
        label_studio.connect_backend(project_id, backend_url)
        label_studio.upload(project_id, sample_clip())
        wait_for_frames(label_studio, project_id)
    except BaseException:  # also Ctrl-C: the next run would take half a project for a whole one
        label_studio.delete_project(project_id)
        raise
    return project_id


def wait_for_frames(label_studio: LabelStudio, project: int, seconds: float = 60.0) -> int:
    """Wait until every task of a project has its frames, and return the id of the first task."""
    deadline = time.monotonic() + seconds
    while True:
        tasks = label_studio.tasks(project)
        if tasks and all(task["data"].get("frames") for task in tasks):
            return int(tasks[0]["id"])
        if time.monotonic() > deadline:
            raise DevError(f"project {project} has a task without frames after {seconds:.0f} s; see the backend's log")
        time.sleep(0.3)


def move_backend(label_studio: LabelStudio, old: str, new: str) -> None:
    """Let all projects that use our backend at its old address use it at the new one."""
    for project in label_studio.projects():
        backends = [b for b in label_studio.get("/api/ml", project=project["id"]) if b["url"].rstrip("/") == old]
        for backend in backends:
            label_studio.patch(f"/api/ml/{backend['id']}", {"url": new, "project": project["id"]})
        hooks = label_studio.get("/api/webhooks/", project=project["id"])
        for hook in hooks:
            if hook["url"] == f"{old}/webhook":
                label_studio.patch(f"/api/webhooks/{hook['id']}/", {"url": f"{new}/webhook"})
        if backends:
            # opening a task lets the backend put the new address into its frames; here, so that no page comes up empty
            for task in label_studio.tasks(project["id"]):
                label_studio.get(f"/api/tasks/{task['id']}", project=project["id"])
