from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.addresses import BLOCKED, EgressPolicy, check_url, embedded, parse_url
from clarion.errors import ConfigurationError, InvalidAddress

STRICT = EgressPolicy()

BAD_ADDRESSES = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1",
    "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1",
    "192.88.99.3", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1",
    "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::c0a8:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:1:2:3:4:5:6",
    "2001:1ff::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1",
    "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1",
]  # fmt: skip

GOOD_ADDRESSES = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255",
    "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.255.255",
    "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.17", "2606:4700::1111",
    "2001:4860:4860::8888", "2001:200::1", "2a00::1", "::ffff:8.8.8.8", "64:ff9c::1",
]  # fmt: skip

BAD_URLS = [
    "", "example.com", "/hook", "//example.com/hook", "http://", "http:///hook", "http:example.com",
    "ftp://example.com/",
    "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "unix:///var/run/docker.sock",
    "http://user@example.com/", "http://user:pass@example.com/", "http://@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com/#fragment", "http://example.com/#", "http://example.com\\@127.0.0.1/",
    "http:\\\\example.com",
    " http://example.com", "http://example.com ", "http://exam ple.com", "http://example.com/a b",
    "http://example.com/\t",
    "http://example.com/\r\nHost: evil", "http://example.com/\x00", "http://example.com/\u200b",
    "http://example.com/\u2028",
    "http://example.com:0/", "http://example.com:65536/", "http://example.com:99999999/",
    "http://example.com:-1/",
    "http://example.com:+80/", "http://example.com:80a/", "http://example.com:/", "http://example.com:８０/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/",
    "http://127.1/", "http://127.0.1/",
    "http://0/", "http://0x/", "http://127.0.0.1./", "http://127.0.0.01/", "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "http://１２７.０.０.１/", "http://127。0。0。1/", "http://①②⑦.0.0.1/", "http://127.0.0.1/", "http://127%2e0.0.1/",
    "http://10.1.2.3:8080/x", "http://169.254.169.254/latest/meta-data/", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/",
    "http://::1/",
    "http://[127.0.0.1]/", "http://[v1.x]/", "http://[]/", "http://[::1]evil.com/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://example..com/", "http://.example.com/", "http://example.com./", "http://-a.com/",
    "http://a-.com/",
    "http://a,b.com/", "http://a%00b.com/", "http://" + "a" * 64 + ".com/", "http://" + "a." * 130 + "com/",
    "http://example.com/" + "a" * 2048, "http://example.com/" + "é" * 700, "http://xn--\u00e9/",
    "http://\u2024/",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_ADDRESSES)
def test_bad_addresses_are_refused_and_the_settings_named(text):
    why = STRICT.refusal(ip_address(text))
    assert why is not None
    assert "CLARION_EGRESS_ALLOWED_NETWORKS" in why
    assert "CLARION_EGRESS_ALLOWED_HOSTS" in why


@pytest.mark.parametrize("text", GOOD_ADDRESSES)
def test_public_addresses_are_not(text):
    assert STRICT.refusal(ip_address(text)) is None


@pytest.mark.parametrize("network", [row[0] for row in BLOCKED], ids=str)
def test_every_row_of_the_table_is_blocked_from_end_to_end(network):
    assert STRICT.refusal(network[0]) is not None
    assert STRICT.refusal(network[-1]) is not None


@given(st.integers(0, 2**32 - 1))
def test_an_embedded_address_is_never_freer_than_itself(number):
    inner = ip_address(number)
    wrapped = [
        ip_address(f"::ffff:{inner}"),
        ip_address((0x64FF9B << 96) | number),
        ip_address((0x2002 << 112) | (number << 80)),
    ]
    assert [embedded(address) for address in wrapped] == [inner] * 3
    lenient = EgressPolicy.of(["64:ff9b::/96", "2002::/16"])
    for address in wrapped:
        assert (lenient.refusal(address) is None) == (STRICT.refusal(inner) is None)


def test_teredo_and_compatible_addresses_are_unwrapped():
    assert str(embedded(ip_address("2001:0:4136:e378:8000:63bf:3fff:fdd2"))) == "192.0.2.45"
    assert str(embedded(ip_address("::10.0.0.1"))) == "10.0.0.1"
    assert str(embedded(ip_address("64:ff9b:1::a00:1"))) == "10.0.0.1"
    for text in ("2606:4700::1111", "::1", "::"):
        assert embedded(ip_address(text)) is None


def test_an_allowed_network_opens_itself_only():
    policy = EgressPolicy.of(["10.1.0.0/16", " fd00::/8 "])
    assert policy.refusal(ip_address("10.1.2.3")) is None
    assert policy.refusal(ip_address("::ffff:10.1.2.3")) is None
    assert policy.refusal(ip_address("fd00::1")) is None
    assert policy.refusal(ip_address("10.2.0.1")) is not None
    assert EgressPolicy.of(["::1"]).refusal(ip_address("::1")) is None
    # A translated address needs both: the translator's network and what lies behind it.
    assert policy.refusal(ip_address("64:ff9b::a01:203")) is not None


def test_an_allowed_host_opens_its_own_name_only():
    policy = EgressPolicy.of(hosts=["Intra.Example", "127.0.0.1", "[::1]"])
    assert policy.refusal(ip_address("10.0.0.1"), "intra.example") is None
    assert policy.refusal(ip_address("10.0.0.1"), "other.example") is not None
    assert policy.refusal(ip_address("10.0.0.1")) is not None
    assert policy.check_url("http://127.0.0.1:8000/hook").port == 8000
    assert policy.check_url("http://[0:0::1]/").host == "::1"
    with pytest.raises(InvalidAddress):
        policy.check_url("http://127.0.0.2/")


@pytest.mark.parametrize(
    "networks", [["10.0.0.1/8"], ["nonsense"], [""], ["0.0.0.0/0"], ["::/0"], ["1.2.3.4/33"]]
)
def test_unusable_networks_name_their_setting(networks):
    with pytest.raises(ConfigurationError, match="CLARION_EGRESS_ALLOWED_NETWORKS"):
        EgressPolicy.of(networks)


@pytest.mark.parametrize("host", ["", "a b", "http://x", "*.example.com", "10.0.0"])
def test_unusable_hosts_name_their_setting(host):
    with pytest.raises(ConfigurationError, match="CLARION_EGRESS_ALLOWED_HOSTS"):
        EgressPolicy.of(hosts=[host])


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls_are_refused_with_a_sentence(url):
    with pytest.raises(InvalidAddress) as caught:
        check_url(url)
    assert len(caught.value.message) > 20


def test_the_corpus_is_large_enough():
    assert len(BAD_ADDRESSES) + len(BAD_URLS) >= 120


@pytest.mark.parametrize(
    ("url", "called", "host", "port"),
    [
        ("https://example.com", "https://example.com/", "example.com", 443),
        ("HTTPS://Example.COM:443/Hook?a=b&c", "https://example.com/Hook?a=b&c", "example.com", 443),
        ("http://example.com:8080/%20x", "http://example.com:8080/%20x", "example.com", 8080),
        (
            "https://bücher.example/ü?q=ü",
            "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC",
            "xn--bcher-kva.example",
            443,
        ),
        ("https://faß.example", "https://xn--fa-hia.example/", "xn--fa-hia.example", 443),
        ("http://my_service:80/", "http://my_service/", "my_service", 80),
        ("http://8.8.8.8/x", "http://8.8.8.8/x", "8.8.8.8", 80),
        ("http://[2606:4700:0::1111]:81/", "http://[2606:4700::1111]:81/", "2606:4700::1111", 81),
        (
            "https://example.com/a;b=c,d:e@f!$'()*",
            "https://example.com/a;b=c,d:e@f!$'()*",
            "example.com",
            443,
        ),
    ],
)
def test_good_urls_are_understood(url, called, host, port):
    target = check_url(url)
    assert (target.url, target.host, target.port) == (called, host, port)
    assert check_url(called) == target


@given(st.text(max_size=50))
def test_no_text_raises_anything_else(text):
    for url in (text, "http://" + text, "https://example.com" + text):
        try:
            target = parse_url(url)
        except InvalidAddress:
            continue
        assert target.url.isascii()
        assert parse_url(target.url) == target
