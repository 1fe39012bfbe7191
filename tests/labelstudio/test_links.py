from tam_backend.labelstudio.links import FrameLinks, load_secret

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
