"""Labels and what they mean, there and back."""

import pytest

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.instances import Vocabulary, labels_of


def meanings(*labels):
    return [(i.label, i.category, i.track, i.object_id, i.category_id) for i in Vocabulary(labels)]


def test_instances_of_a_class_are_labels_and_labels_are_instances_again():
    labels = labels_of(["Person", "Ball"], {"Person": 4})
    assert labels == ("Person 1", "Person 2", "Person 3", "Person 4", "Ball")
    assert meanings(*labels) == [
        ("Person 1", "Person", 1, 1, 1),
        ("Person 2", "Person", 2, 2, 1),
        ("Person 3", "Person", 3, 3, 1),
        ("Person 4", "Person", 4, 4, 1),
        ("Ball", "Ball", 1, 5, 2),
    ]
    vocabulary = Vocabulary(labels)
    assert vocabulary.categories == ("Person", "Ball")
    assert [i.track for i in vocabulary.of_category("Person")] == [1, 2, 3, 4]
    assert vocabulary.find("Dog") is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["Object 1"], ["Object"]),
        (["Route 66"], ["Route 66"]),  # no Route 1: the number is part of the name
        (["Person 1", "Person 3"], ["Person 1", "Person 3"]),
        (["Person", "Person 1"], ["Person", "Person 1"]),
        (["Person 01"], ["Person 01"]),
        (["Big dog 1", "Big dog 2"], ["Big dog", "Big dog"]),
        (["Person 2", "Person 1"], ["Person", "Person"]),
    ],
)
def test_a_number_counts_where_the_others_are_there(labels, classes):
    assert [i.category for i in Vocabulary(labels)] == classes


def test_of_a_configuration():
    vocabulary = Vocabulary.of_config(parse_label_config(EXAMPLE))
    assert [(i.category, i.track) for i in vocabulary] == [("Object", 1), ("Object", 2)]


@pytest.mark.parametrize(
    ("classes", "instances", "message"),
    [
        (["Dog", "Dog"], {}, "given twice"),
        (["Dog"], {"Cat": 2}, "there is no --label 'Cat'"),
        ([" Dog"], {}, "spaces around"),
        (["a,b"], {}, "commas"),
        (["Dog", "Dog 2"], {"Dog": 3}, "also one of --instances"),
        ([], {}, "say what"),
        (["Dog"], {"Dog": 256}, "256 labels"),
    ],
)
def test_what_cannot_be_used_is_refused(classes, instances, message):
    with pytest.raises(BadInput, match=message):
        labels_of(classes, instances)
