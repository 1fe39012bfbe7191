"""Put the pictures that the browser test of docs/quick-start.md took into docs/images, small enough to be committed.

.venv/bin/python -m pytest tests/browser/test_quick_start.py && .venv/bin/python scripts/docs_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TAKEN = ROOT / ".run" / "screenshots" / "test_quick_start"
PAGE = ROOT / "docs" / "images"
WIDTH = 1000


def main() -> int:
    taken = sorted([*TAKEN.glob("*.png"), *TAKEN.glob("*.jpg")])
    if not taken:
        print(f"no pictures in {TAKEN}: run the browser test first", file=sys.stderr)
        return 1
    PAGE.mkdir(parents=True, exist_ok=True)
    for path in taken:
        with Image.open(path) as image:
            small = image.convert("RGB")
            if path.stem == "tasks":  # below the last task the page is empty
                small = small.crop((0, 0, small.width, small.height // 3))
            small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        target = PAGE / f"{path.stem}.jpg"
        small.save(target, quality=88, subsampling=0, optimize=True)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
