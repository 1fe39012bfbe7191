"""Developer tools of this repository: environments, a Label Studio of our own, the sample project, the test stages.

Standard library only: it runs before anything is installed.
"""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[2]
#: What running leaves behind: data of Label Studio and of the backend, logs, screenshots. Ignored by git.
RUN_DIR = ROOT / ".run"


class DevError(Exception):
    """An expected failure; its text is all that is shown."""
