"""SAM's image encoder here against the official code: image by image in turns, in one process.

    python benchmarks/compare_sam.py --official CHECKOUT [--size 480x854] [--images 4] [--threads 2]

CHECKOUT: of https://github.com/facebookresearch/segment-anything. ViT-B with the weights of
tests/deterministic_weights.py; the pictures are made. Both encode the same picture, and the order changes every time.
Prints the times, their ratio, and the largest difference of the low-res logits of a click and of a box.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import official

from tests.deterministic_weights import SAM, fill


def picture(height: int, width: int, seed: int) -> np.ndarray:
    random = torch.randn(1, 3, 30, 54, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(random, (height, width), mode="bicubic")[0]
    return (128 + 60 * smooth).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--size", default="480x854", help="height x width")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.set_num_threads(args.threads)
    package = official.load_sam(args.official)
    theirs = package.build_sam_vit_b().eval()
    fill(theirs, SAM)
    theirs = package.SamPredictor(theirs)

    from segment_anything.build_sam import build_sam_vit_b  # the installed one

    from tam_backend.segmenters.sam import Predictor

    sam = build_sam_vit_b()
    sam.load_state_dict(theirs.model.state_dict())
    ours = Predictor(sam)
    point, box = np.array([[width / 2, height / 2]]), np.array([width / 4, height / 4, width / 2, height / 2])
    turns, error = official.Turns(), 0.0
    for index in range(args.images):
        image = picture(height, width, index)
        with torch.no_grad():
            embedding, _ = turns.run(partial(ours.encode, image), partial(theirs.set_image, image))
        for mine, named in (
            ({"points": point, "labels": [1]}, {"point_coords": point, "point_labels": np.array([1])}),
            ({"box": box}, {"box": box}),
        ):
            expected = theirs.predict(**named, multimask_output=True)[2]
            low_res = ours.decode(embedding, **mine, several=True).low_res
            error = max(error, float(np.abs(low_res - expected).max()))
    turns.tell(f"set_image, {width}x{height}")
    print(f"largest difference of a low-res logit {error:.1e}")


if __name__ == "__main__":
    main()
