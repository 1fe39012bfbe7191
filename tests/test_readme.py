from pathlib import Path

from tam_backend.labelstudio.config import EXAMPLE

ROOT = Path(__file__).parents[1]


def test_the_documentation_shows_the_configuration_that_works():
    assert f"```xml\n{EXAMPLE}```" in (ROOT / "docs" / "label-studio.md").read_text()


def test_links_of_the_documentation_lead_somewhere():
    import re

    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
