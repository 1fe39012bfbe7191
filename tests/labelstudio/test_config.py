import pytest

from tam_backend.errors import BadInput, LabelConfigError
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config


def test_example_works():
    config = parse_label_config(EXAMPLE)
    assert [c.name for c in config.points] == ["point"]
    assert [(c.name, c.type, c.labels) for c in config.masks] == [("mask", "brushlabels", ("Object 1", "Object 2"))]
    assert config.frames_key() == config.frames_key("image") == "frames"
    assert config.video_key == "video"


def test_tags_keys_and_labels_come_from_the_configuration():
    config = parse_label_config("""
      <View>
        <Image name="a" valueList="$pages"/> <Image name="b" valueList="$other"/>
        <KeyPointLabels name="k" toName="b"><Label value="Person" alias="person"/><Label value="Ball"/></KeyPointLabels>
        <BrushLabels name="elsewhere" toName="a"><Label value="Ball"/></BrushLabels>
        <BitmaskLabels name="m" toName="b"><Label value="Ball"/></BitmaskLabels>
        <BrushLabels name="n" toName="b"><Label alias="person" value="Person"/></BrushLabels>
        <Video name="v" value="$movie"/>
      </View>""")
    [point] = config.points
    assert point.labels == ("person", "Ball")  # regions hold a label's alias where it has one
    assert config.mask_control(point.image, "Ball").name == "m"
    assert config.mask_control(point.image, "person").name == "n"
    assert config.frames_key(point.image) == "other"
    assert config.frames_key() == "pages"
    assert config.video_key == "movie"


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("<View><Image", "not valid XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><View>&a;</View>", "not valid XML"),
        ("<View/>", "no <Image>"),
        ('<View><Video name="v" value="$video"/></View>', "<Video> cannot show"),
        ('<View><Image name="i" value="$image"/></View>', "shows one picture"),
        ('<View><Image name="i" valueList="$f"/></View>', "no <KeyPointLabels>"),
        (
            '<View><Image name="i" valueList="$f"/>'
            '<KeyPointLabels name="k" toName="i"><Label value="A"/></KeyPointLabels></View>',
            "no <BrushLabels> or <BitmaskLabels>",
        ),
        (
            '<View><Image name="i" valueList="$f"/>'
            '<KeyPointLabels name="k" toName="i"><Label value="A"/></KeyPointLabels>'
            '<BrushLabels name="m" toName="i"><Label value="B"/></BrushLabels></View>',
            "no label in common",
        ),
    ],
)
def test_unusable_configurations_say_why_and_show_one_that_works(xml, says):
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(xml)
    assert says in str(caught.value)
    assert EXAMPLE in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "key"),
    [
        ('<Text name="video" value="$film"/><Text name="title" value="$title"/>', "film"),
        ('<Text name="video" value="$film"/><Video name="v" value="$movie"/>', "movie"),
        ('<Text name="title" value="$title"/>', "video"),
        ('<Text name="video" value="Some words"/>', "video"),
    ],
)
def test_key_of_the_video(tags, key):
    xml = EXAMPLE.replace('<Text name="video" value="$video"/>', tags)
    assert parse_label_config(xml).video_key == key


def test_a_label_without_a_mask_tag_is_named():
    with pytest.raises(BadInput, match="'Cat'"):
        parse_label_config(EXAMPLE).mask_control("image", "Cat")


def test_boxes_are_prompts_where_the_tag_is_smart():
    assert parse_label_config(EXAMPLE).boxes == ()
    for smart in ('smart="true" smartOnly="true"', ""):  # smart is the editor's default
        xml = EXAMPLE.replace('name="box" toName="image" smart="false"', f'name="box" toName="image" {smart}')
        [box] = parse_label_config(xml).boxes
        assert (box.name, box.type, box.labels) == ("box", "rectanglelabels", ("Object 1", "Object 2"))
