"""The second and later clicks on a frame that SAM has encoded: the whole HTTP request, and the mask decoder's part.

    python benchmarks/second_click.py [--clicks 15] [--size 480x854]

The server as it is, with SAM ViT-B and XMem at full size and weights of chance, on a video of one frame; Label Studio
is played by the one of the tests. Nothing else is computed at the time, so a request waits for nobody.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests
from segment_anything.build_sam import build_sam_vit_b
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.engines import Engine
from tam_backend.propagators.xmem import XMem, XMemPropagator
from tam_backend.segmenters.sam import SamSegmenter
from tests.deterministic_weights import SAM, fill
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import LABELS, Backend


def point(number: int, new: bool) -> dict[str, object]:
    at = {"x": 30 + number * 3 % 40, "y": 30 + number * 7 % 40, "width": 0.3, "keypointlabels": [LABELS[0]]}
    region = {"id": f"p{number}", "from_name": "point", "to_name": "image", "type": "keypointlabels", "item_index": 0}
    region |= {"origin": "manual", "original_width": 854, "original_height": 480, "image_rotation": 0, "value": at}
    if new:
        at["labels"] = [LABELS[0]]
        return region | {"is_positive": number % 3 != 1}
    return region | {"meta": {"is_positive": number % 3 != 1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=15)
    parser.add_argument("--size", default="480x854", help="height x width")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    sam = build_sam_vit_b()
    fill(sam, SAM)
    engine = Engine("sam-xmem", "benchmark", SamSegmenter(sam), XMemPropagator(XMem()))
    decoding: list[float] = []
    predictor = engine.segmenter._predictor
    decode = predictor.decode

    def timed(*arguments: object, **named: object) -> object:
        start = time.perf_counter()
        try:
            return decode(*arguments, **named)
        finally:
            decoding.append(time.perf_counter() - start)

    predictor.decode = timed
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        studio = FakeLabelStudio(root)
        backend = Backend(root / "data", studio, engine=engine)
        make_video(root / "a.mp4", 1, width, height)
        backend.connect()
        task = studio.add_task({"video": "/data/upload/1/a.mp4"})
        assert backend.batch(task).status_code == 200
        server = make_server("127.0.0.1", 0, backend.app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/predict"
        whole, beyond, points = [], [], []
        for number in range(args.clicks + 1):
            new = point(number, new=True)
            sent = [*points, new]
            studio.drafts = [{"id": 900 + number, "result": sent}]
            body = backend._request([studio.tasks[task["id"]] | {"drafts": [], "annotations": [], "predictions": []}],
                                    {"result": sent})  # fmt: skip
            decoding.clear()
            start = time.perf_counter()
            answer = requests.post(url, json=body, timeout=600)
            took = time.perf_counter() - start
            answer.raise_for_status()
            if number:
                whole.append(took)
                beyond.append(took - sum(decoding))
            points.append(point(number, new=False))
            backend.arrived()
        middle, rest = statistics.median(whole) * 1e3, statistics.median(beyond) * 1e3
        print(
            f"{args.clicks} clicks on an embedded frame of {width}x{height}: whole request {middle:.0f} ms, beyond the "
            f"decoder {rest:.0f} ms (medians; least {min(beyond) * 1e3:.0f})"
        )
        server.shutdown()
        backend.service.close()
        studio.close()


if __name__ == "__main__":
    main()
