"""Saved annotations are made whole behind the webhook."""

import numpy as np

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.regions import mask_region


def test_a_submitted_annotation_is_made_whole_once(backend, label_studio):
    backend.connect()
    control = parse_label_config(backend.config).masks[0]
    mask = np.zeros((48, 64), bool)
    mask[30:40, 30:50] = True
    region = mask_region(control, "Object 1", 2, mask, 1.0, {}) | {"origin": "prediction-changed"}
    stroke = {"type": "eraser", "relativePoints": [50, 75], "relativeStrokeWidth": 5}
    region["value"] = region["value"] | {"touches": [stroke]}
    label_studio.annotations[7] = {"id": 7, "result": [region]}

    def save_event(action: str) -> None:
        event = {"action": action, "annotation": label_studio.annotations[7], "task": {"id": 1}}
        event["project"] = {"id": 1, "label_config": backend.config}
        assert backend.client.post("/webhook", json=event).status_code == 200

    save_event("ANNOTATION_CREATED")
    backend.service._workers.shutdown(wait=True)
    [saved] = label_studio.annotations[7]["result"]
    assert "touches" not in saved["value"]
    assert sum(method == "PATCH" for method, _, _ in label_studio.requests) == 1


def test_whole_annotations_are_not_touched(backend, label_studio):
    backend.connect()
    label_studio.annotations[7] = {"id": 7, "result": []}
    event = {"action": "ANNOTATION_UPDATED", "annotation": {"id": 7, "result": []}}
    event["project"] = {"id": 1, "label_config": backend.config}
    assert backend.client.post("/webhook", json=event).status_code == 200
    backend.service._workers.shutdown(wait=True)
    assert not [r for r in label_studio.requests if "annotations" in r[1]]
