"""Where this server may be sent, and where not."""

import ipaddress

import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.addresses import MediaRules, is_public, parse_url, resolve_label_studio
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.media import Downloader

QUICK = Patience(seconds=5, attempts=1, pause=0)

FORBIDDEN = [
    # (address, what of it names a private place)
    ("http://127.0.0.1/a.mp4", "loopback"),
    ("http://127.1.2.3:8080/a.mp4", "all of 127/8"),
    ("http://127.1/a.mp4", "short form"),
    ("http://2130706433/a.mp4", "decimal"),
    ("http://0x7f000001/a.mp4", "hexadecimal"),
    ("http://0177.0.0.1/a.mp4", "octal"),
    ("http://0.0.0.0/a.mp4", "this host"),
    ("http://0/a.mp4", "this host, in short"),
    ("http://0x7f.1/a.mp4", "hexadecimal and short"),
    ("http://017700000001/a.mp4", "octal in one number"),
    ("http://localhost.test/a.mp4", "a name for loopback"),
    ("http://localhost.test./a.mp4", "the same with a dot behind"),
    ("http://10.1.2.3/a.mp4", "private"),
    ("http://172.31.255.255/a.mp4", "private"),
    ("http://192.168.0.1/a.mp4", "private"),
    ("http://100.100.100.200/latest/meta-data", "carrier NAT, metadata"),
    ("http://169.254.169.254/latest/meta-data", "link-local, metadata"),
    ("http://168.63.129.16/metadata", "Azure's platform"),
    ("http://224.0.0.1/a.mp4", "multicast"),
    ("http://255.255.255.255/a.mp4", "broadcast"),
    ("http://[::1]/a.mp4", "loopback"),
    ("http://[::]/a.mp4", "unspecified"),
    ("http://[::ffff:169.254.169.254]/latest", "IPv4-mapped"),
    ("http://[::ffff:7f00:1]/a.mp4", "IPv4-mapped"),
    ("http://[::127.0.0.1]/a.mp4", "IPv4-compatible"),
    ("http://[::ffff:0:7f00:1]/a.mp4", "IPv4-translated"),
    ("http://[2002:7f00:1::1]/a.mp4", "6to4 of 127.0.0.1"),
    ("http://[64:ff9b::a9fe:a9fe]/latest", "NAT64 of 169.254.169.254"),
    ("http://[64:ff9b:1::7f00:1]/a.mp4", "NAT64 on local prefixes"),
    ("http://[2001:0:1:2:3:4:80ff:fffe]/a.mp4", "Teredo"),
    ("http://[fe80::1]/a.mp4", "link-local"),
    ("http://[fd00:ec2::254]/latest", "unique local, metadata"),
    ("http://[fec0::1]/a.mp4", "site-local"),
    ("http://[ff02::1]/a.mp4", "multicast"),
    ("http://mixed.test/a.mp4", "one of its addresses is private"),
    ("http://①②⑦.0.0.1/a.mp4", "digits in disguise"),
    ("http://nowhere.test/a.mp4", "no address"),
    ("http://user@93.184.216.34/a.mp4", "a user name"),
    ("http://93.184.216.34:80@127.0.0.1/a.mp4", "a user name that looks like a host"),
    ("http://127.0.0.1\\@93.184.216.34/a.mp4", "a backslash"),
    ("http://127.0.0.1%2f@93.184.216.34/a.mp4", "a slash in the user name"),
    ("http://93.184.216.34\t.test/a.mp4", "a control character"),
    ("http://93.184.216.34\r\nX: y/a.mp4", "a header"),
    ("http://[fe80::1%25eth0]/a.mp4", "a zone"),
    ("http://93.184.216.34:0/a.mp4", "port 0"),
    ("http://93.184.216.34:65536/a.mp4", "no port"),
    ("http:///a.mp4", "no host"),
    ("http://a b.test/a.mp4", "a space"),
    ("http://127%2e0.0.1/a.mp4", "an escaped host"),
    ("file:///etc/passwd", "another scheme"),
    ("gopher://93.184.216.34/a", "another scheme"),
    ("http:93.184.216.34/a.mp4", "no slashes"),
    ("http://[::1/a.mp4", "half a bracket"),
    ("http://93.184.216.34/\ud800", "half a character"),
    ("http://\ud800.test/a.mp4", "half a character"),
]


@pytest.mark.parametrize(("url", "why"), FORBIDDEN)
def test_forbidden_places_are_not_even_connected_to(url, why, resolver, connections_tried, tmp_path):
    names = {"localhost.test": ["127.0.0.1"], "mixed.test": ["93.184.216.34,10.0.0.1"]}
    resolver(names | {"localhost.test.": ["127.0.0.1"]})
    with pytest.raises(MediaError):
        Downloader((), 10**6, patience=QUICK).fetch(url, None, tmp_path / "v" / "a.mp4")
    assert connections_tried == []


@pytest.mark.parametrize(
    ("url", "to"),
    [
        ("http://93.184.216.34/a.mp4", [("93.184.216.34", 80)]),
        ("https://Media.Test/a.mp4", [("93.184.216.34", 443), ("2606:2800:21f::1", 443)]),
        ("http://[64:ff9b::5db8:d822]:8080/a", [("64:ff9b::5db8:d822", 8080)]),
    ],
)
def test_the_open_internet_is_connected_to_at_the_checked_addresses(url, to, resolver, connections_tried, tmp_path):
    resolver({"media.test": ["93.184.216.34,2606:2800:21f::1"]})
    with pytest.raises(MediaError, match="cannot be connected to"):
        Downloader((), 10**6, patience=QUICK).fetch(url, None, tmp_path / "a.mp4")
    assert connections_tried == to


def test_a_name_that_changes_its_address_gains_nothing(resolver, connections_tried, tmp_path):
    """DNS rebinding: what was checked is what is connected to, and every attempt is checked anew."""
    resolver({"rebinds.test": ["93.184.216.34", "127.0.0.1"]})
    twice = Patience(attempts=2, pause=0)
    with pytest.raises(MediaError, match=r"rebinds.test is not on the open internet"):
        Downloader((), 10**6, patience=twice).fetch("http://rebinds.test/a.mp4", None, tmp_path / "a.mp4")
    assert connections_tried == [("93.184.216.34", 80)]


def test_the_open_internet_can_be_closed(resolver, connections_tried, tmp_path):
    resolver({"media.test": ["93.184.216.34"], "listed.test": ["10.0.0.1"]})
    closed = Downloader(("listed.test",), 10**6, public=False, patience=QUICK)
    with pytest.raises(MediaError, match=r"add media.test to TAM_MEDIA_HOSTS"):
        closed.fetch("http://media.test/a.mp4", None, tmp_path / "a.mp4")
    assert connections_tried == []
    with pytest.raises(MediaError, match="cannot be connected to"):
        closed.fetch("http://listed.test/a.mp4", None, tmp_path / "a.mp4")
    assert connections_tried == [("10.0.0.1", 80)]


@pytest.mark.parametrize(
    ("listed", "url", "allowed"),
    [
        ("store", "http://store:9000/a", True), ("store:9000", "http://store:9000/a", True),
        ("store:9000", "http://store:9001/a", False), ("store:443", "https://STORE/a", True),
        ("store", "http://store.evil.test/a", False), ("127.0.0.1", "http://127.0.0.1/a", True),
        ("127.0.0.1", "http://store/a", False), ("::1", "http://[::1]/a", True),
        ("[::1]:90", "http://[0:0::1]:90/a", True),
    ],
)  # fmt: skip
def test_listed_hosts_may_be_private(listed, url, allowed, resolver):
    resolver({"store": ["127.0.0.1"], "store.evil.test": ["127.0.0.1"]})
    rules, url = MediaRules((listed,), public=True), parse_url(url)
    if allowed:
        assert rules.resolve(url.host, url.port)
    else:
        with pytest.raises(MediaError, match="TAM_MEDIA_HOSTS"):
            rules.resolve(url.host, url.port)


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "fd00:ec2::254"])
def test_label_studio_is_not_at_metadata_services(host):
    with pytest.raises(MediaError, match="no Label Studio"):
        resolve_label_studio(host, 80)
    assert resolve_label_studio("127.0.0.1", 80) == [ipaddress.ip_address("127.0.0.1")]


def test_what_is_public():
    public = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "192.169.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
    assert all(is_public(ipaddress.ip_address(ip)) for ip in public)


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("HTTP://Host:80/a b.mp4?x=1#f", "http://host/a%20b.mp4?x=1", "http://host/a b.mp4"),
        ("https://h/100%.mp4", "https://h/100%.mp4", "https://h/100%.mp4"),
        ("http://bücher.test/ü", "http://xn--bcher-kva.test/%C3%BC", "http://xn--bcher-kva.test/ü"),
        ("http://h:8080", "http://h:8080/", "http://h:8080/"),
        ("http://h/a%0Ab", "http://h/a%0Ab", "http://h/a?b"),
        ("http://h//etc?X-Amz-Signature=s", "http://h//etc?X-Amz-Signature=s", "http://h//etc"),
        ("http://h/data/local-files/?d=a/b.mp4", "http://h/data/local-files/?d=a/b.mp4",
         "http://h/data/local-files/?d=a/b.mp4"),
        ("http://h/projects/1/presign/?fileuri=czM6Ly9iL2s=", "http://h/projects/1/presign/?fileuri=czM6Ly9iL2s=",
         "s3://b/k"),
    ],
)  # fmt: skip
def test_urls_are_read_and_shown(text, url, shown):
    assert str(parse_url(text)) == url
    assert parse_url(url) == parse_url(text)
    assert parse_url(text).shown == shown
