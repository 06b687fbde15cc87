import pytest

from runpod_comfy.errors import InputError
from runpod_comfy.worker.addresses import check_public_host, is_public


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1",
        "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:169.254.169.254", "::ffff:7f00:1", "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "2001:db8::1",
        "::7f00:1", "::1.1.1.1", "fec0::1", "64:ff9b:1::a00:1", "no address", "",
    ],
)  # fmt: skip
def test_addresses_of_machines_networks_and_nobody_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f000001", "127.1", "::1"])
async def test_host_is_judged_by_what_it_resolves_to(host):
    with pytest.raises(InputError, match="no public address"):
        await check_public_host(host)


@pytest.mark.parametrize("host", ["absent.invalid", "a" * 300, "\u2028"])
async def test_host_that_does_not_resolve_is_an_error(host):
    with pytest.raises(InputError, match="cannot be resolved"):
        await check_public_host(host)
