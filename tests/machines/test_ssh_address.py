"""Image strings of ssh machines, and what OpenSSH's configuration adds to them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.machines.errors import ImageUnusable, UnknownImage
from palmette.machines.ssh.address import Address, SshImage, Target, parse_image, resolve

names = st.text("abcdefgXYZ0123456789_.-", min_size=1).filter(lambda name: name.strip(".-") == name)


@given(user=st.none() | names, host=names, port=st.none() | st.integers(1, 65535))
def test_the_target_is_taken_as_it_is_written(user: str | None, host: str, port: int | None) -> None:
    text = f"{'' if user is None else f'{user}@'}{host}{'' if port is None else f':{port}'}"
    assert parse_image(text).target == Target(host, user, port)


@given(st.text())
def test_whatever_an_image_says_it_is_understood_or_refused(text: str) -> None:
    with suppress(UnknownImage):
        assert isinstance(parse_image(text), SshImage)


def test_options_and_an_address_of_version_6_are_understood() -> None:
    image = parse_image("me@[::1]:22?identity=~/k&known_hosts=/h&jump=a@one:1,two&directory=/var/tmp/&lease=2.5")
    assert image.target == Target("::1", "me", 22)
    assert (image.identity, image.known_hosts) == ("~/k", "/h")
    assert image.jump == (Target("one", "a", 1), Target("two"))
    assert (image.directory, image.lease) == ("/var/tmp", 2.5)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("", "names no host"),
        ("@farm", "no user before @"),
        ("me:secret@farm", "holds a password"),
        ("farm:port", "port of 'farm:port'"),
        ("farm:65536", "port of 'farm:65536'"),
        ("[::1", "cannot be taken apart"),
        ("farm?jump=a:b", "port of 'a:b'"),
        ("farm:0", "port 0"),
        ("farm/tmp", "names a path"),
        ("farm?colour=red", "'colour', which does not exist"),
        ("farm?lease=2&lease=3", "an option twice"),
        ("farm?identity=", "gives no value to 'identity'"),
        ("farm?lease=soon", "a number of seconds"),
        ("farm?lease=nan", "a number of seconds"),
        ("farm?directory=tmp", "absolute path"),
        ("farm?directory=/tmp/../etc", "without '..'"),
        ("farm?jump=a,,b", "names no host"),
        ("fa rm", "is no host"),
    ],
)
def test_a_string_that_cannot_be_meant_is_refused_and_the_error_says_why(rest: str, says: str) -> None:
    with pytest.raises(UnknownImage, match=says) as caught:
        parse_image(rest)
    assert "secret" not in str(caught.value)


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    (tmp_path / "key").touch()
    (tmp_path / "config").write_text(
        f"""
        Host farm
          HostName farm.example.org
          User build
          Port 2222
          IdentityFile {tmp_path}/key
          IdentityFile {tmp_path}/missing
          ProxyJump gate,inner:23
          UserKnownHostsFile {tmp_path}/known_1 {tmp_path}/known_2
        Host gate
          User keeper
          IdentitiesOnly yes
        Host inner
          ProxyJump elsewhere
        Host circle
          ProxyJump circle
        """
    )
    return tmp_path


def resolved(text: str, configuration: Path) -> Address:
    return resolve(parse_image(f"{text}{'&' if '?' in text else '?'}config={configuration / 'config'}"))


def test_the_configuration_fills_in_what_the_image_leaves_open(configured: Path) -> None:
    address = resolved("farm", configured)
    assert (address.host, address.user, address.port) == ("farm.example.org", "build", 2222)
    assert address.identities == (f"{configured}/key",)
    assert address.agent
    assert address.known_hosts == (f"{configured}/known_1", f"{configured}/known_2")
    assert address.known_as == "[farm.example.org]:2222"
    inner = address.jump
    assert inner is not None
    assert (inner.host, inner.port) == ("inner", 23)
    gate = inner.jump
    assert gate is not None, "the way to the second jump is the first one, not what its own section says"
    assert (gate.host, gate.user, gate.agent, gate.jump) == ("gate", "keeper", False, None)


def test_what_the_image_says_comes_before_the_configuration(configured: Path) -> None:
    address = resolved("me@farm:5?identity=/k&known_hosts=/h&jump=none", configured)
    assert (address.user, address.port, address.identities, address.known_hosts) == ("me", 5, ("/k",), ("/h",))
    assert not address.agent
    assert address.jump is None


def test_the_image_s_key_and_known_hosts_hold_for_the_jump_too(configured: Path) -> None:
    jump = resolved("host?jump=gate&identity=/k&known_hosts=/h", configured).jump
    assert jump is not None
    assert (jump.identities, jump.known_hosts) == (("/k",), ("/h",))


def test_jumps_that_go_in_a_circle_are_refused(configured: Path) -> None:
    with pytest.raises(ImageUnusable, match="circle"):
        resolved("circle", configured)


def test_without_a_configuration_the_usual_places_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "somebody")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").touch()
    address = resolve(parse_image("farm"))
    assert (address.user, address.port) == ("somebody", 22)
    assert address.identities == (f"{tmp_path}/.ssh/id_ed25519",)
    assert address.known_hosts[0] == f"{tmp_path}/.ssh/known_hosts"


def test_a_port_of_the_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host farm\n  Port ssh\n")
    with pytest.raises(ImageUnusable, match="Port 'ssh'"):
        resolved("farm", tmp_path)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("this is no configuration\x00 at all\nHost\n")
    with pytest.raises(ImageUnusable, match=str(tmp_path / "config")):
        resolved("farm", tmp_path)
