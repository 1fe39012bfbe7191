from urllib.parse import parse_qsl, urlsplit

import pytest

from tam_backend.labelstudio.links import FrameLinks, Permission, load_secret

VIDEO = "0123456789abcdef0123456789abcdef"


def test_urls_survive_a_round_trip_and_a_move_of_the_server():
    links = FrameLinks(b"secret")
    url = links.url("http://host:9090/prefix", VIDEO, 12)
    assert links.parse(url) == (VIDEO, 12)
    assert links.parse(url.replace("http://host:9090", "https://elsewhere")) == (VIDEO, 12)


def test_what_we_did_not_sign_is_not_ours():
    links = FrameLinks(b"secret")
    url = links.url("http://host", VIDEO, 12)
    other = VIDEO[::-1]
    for wrong in [
        url[:-1], url + "0", url.partition("?")[0], url.replace(VIDEO, other), FrameLinks(b"x").url("h", VIDEO, 1),
        url.replace("/12.jpg", "/-1.jpg"), url.replace("/12.jpg", "/../x.jpg"), "http://[::1", "", None, 3, ["a"],
    ]:  # fmt: skip
        assert links.parse(wrong) is None, wrong


def test_secret_is_made_once_and_kept_to_its_owner(tmp_path):
    secret = load_secret(tmp_path / "data")
    assert len(secret) == 32
    assert load_secret(tmp_path / "data") == secret
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o077 == 0
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["secret"]
    assert load_secret(tmp_path / "other") != secret


DAY = 86_400


class Clock:
    now = 1_000_000 * DAY

    def __call__(self) -> float:
        return self.now


def left(links: FrameLinks, url: str) -> float:
    """Seconds for which an address is good; -1 if its signature is not ours."""
    permission = Permission.read(dict(parse_qsl(urlsplit(url).query)))
    return links.seconds_left(permission) if links.signed(VIDEO, permission) else -1


def test_addresses_end_and_are_still_known_as_ours():
    clock = Clock()
    links = FrameLinks(b"secret", 4, clock)
    url = links.url("http://host", VIDEO, 12)
    assert left(links, url) == 4 * DAY
    clock.now += 4 * DAY - 1
    assert left(links, url) == 1
    clock.now += 1
    assert left(links, url) <= 0
    assert links.parse(url) == (VIDEO, 12)


def test_addresses_change_only_when_half_of_their_time_is_over():
    clock = Clock()
    links = FrameLinks(b"secret", 4, clock)
    first = links.url("http://host", VIDEO, 0)
    clock.now += 2 * DAY - 1
    assert links.url("http://host", VIDEO, 0) == first
    assert left(links, first) > 2 * DAY
    clock.now += 1
    assert links.url("http://host", VIDEO, 0) != first
    assert left(links, links.url("http://host", VIDEO, 0)) == 4 * DAY


def test_an_end_cannot_be_put_off():
    clock = Clock()
    links = FrameLinks(b"secret", 4, clock)
    url = links.url("http://host", VIDEO, 0)
    end = url.partition("exp=")[2]
    for wrong in (f"&exp={int(end) + 1}", "&exp=0", "", "&exp=-1", "&exp=x", f"&exp=0{end}0", f"&exp={'9' * 40}"):
        changed = url.replace(f"&exp={end}", wrong)
        assert left(links, changed) == -1, wrong
        assert links.parse(changed) is None, wrong


@pytest.mark.parametrize(("days", "good"), [(0, True), (8, True), (4, True), (2, False)])
def test_no_address_is_good_for_longer_than_the_setting_says(days, good):
    clock = Clock()
    url = FrameLinks(b"secret", 4, clock).url("http://host", VIDEO, 0)
    assert (left(FrameLinks(b"secret", days, clock), url) > 0) == good
    for_ever = FrameLinks(b"secret").url("http://host", VIDEO, 0)
    assert (left(FrameLinks(b"secret", days, clock), for_ever) > 0) == (days == 0)
