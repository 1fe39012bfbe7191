"""From nothing to an exported data set: project, videos as clips, clicks, corrections, every format.

The pictures that it takes are those of docs/quick-start.md (scripts/docs_pictures.py puts them there).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Servers
from tests.browser.dataset import Click, Team, accept_all, click_all, frames_of, judge
from tests.browser.editor import Editor
from tests.browser.scene import FRAMES, centre

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_from_nothing_to_a_data_set(
    servers: Servers, editor: Editor, screenshots: Path, scene: Path, tmp_path: Path
) -> None:
    studio = servers.label_studio
    team = Team(
        studio.url, servers.account.token, servers.backend, editor, studio.get,
        lambda name: editor.call("screenshot", str(screenshots / f"{name}.png")),
    )  # fmt: skip
    create = ("project", "create", "From nothing", "--label", "Disc", "--label", "Square", "--backend", servers.backend)
    team.tam(*create)
    project = team.project("From nothing")
    team.tam("import", project, scene, "--clip", 10, "--overlap", 1)
    assert "is there already" in team.tam(*create)
    assert "in the project already" in team.tam("import", project, scene)
    tasks = team.tasks(project)
    assert [frames_of(t)[0] for t in tasks] == [0, 9, 18]

    click_all(team, project, [Click(scene.stem, 3, name, *centre(name, 3)) for name in ("Disc", "Square")])
    x, y = centre("Disc", 18)
    accepted = accept_all(team, project, erase=(1, [[x - 3, y], [x + 12, y]]))
    assert {k[2] for k in accepted} == set(range(FRAMES))  # across both borders

    equal = judge(team, project, accepted, tmp_path)
    print(len(accepted), "masks accepted;", equal)
