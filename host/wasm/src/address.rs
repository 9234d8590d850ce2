//! Classifies addresses: which belong to the public internet, and which to private networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressClass {
    Public,
    Loopback,
    Private,
    LinkLocal,
    /// Unspecified, multicast, documentation, benchmarking, reserved: no request should go there.
    Special,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Special => "a special-purpose address",
        })
    }
}

/// The class of `ip`. An IPv6 address that wraps an IPv4 address (mapped, compatible, 6to4, NAT64) has the class of
/// that address.
pub(super) fn class(ip: IpAddr) -> AddressClass {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

fn class_v4(ip: Ipv4Addr) -> AddressClass {
    match ip.octets() {
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => AddressClass::Private,
        // Shared address space behind a carrier's NAT.
        [100, 64..=127, ..] => AddressClass::Private,
        [169, 254, ..] => AddressClass::LinkLocal,
        // This network, protocol assignments, documentation, benchmarking, multicast and reserved.
        [0, ..] | [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Special,
        [198, 18 | 19, ..] | [192, 88, 99, _] | [224..=255, ..] => AddressClass::Special,
        _ => AddressClass::Public,
    }
}

fn class_v6(ip: Ipv6Addr) -> AddressClass {
    if ip.is_loopback() {
        return AddressClass::Loopback;
    }
    if ip.is_unspecified() {
        return AddressClass::Special;
    }
    if let Some(wrapped) = wrapped_v4(ip) {
        return class_v4(wrapped);
    }
    match ip.segments() {
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        // Unique local addresses, and their predecessors, site-local addresses.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => AddressClass::Private,
        // Translation inside one network.
        [0x64, 0xff9b, 1, ..] => AddressClass::Private,
        // Special assignments (Teredo, benchmarking, ORCHID, ...) and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressClass::Special,
        // Only 2000::/3 is assigned to the public.
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Special,
    }
}

fn wrapped_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_class(expected: AddressClass, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(class(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn public() {
        assert_class(
            AddressClass::Public,
            &["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.167.0.1", "223.255.255.255"],
        );
        assert_class(AddressClass::Public, &["2606:4700::1111", "2a00::1", "64:ff9b::101:101", "2002:101:101::"]);
    }

    #[test]
    fn loopback() {
        assert_class(AddressClass::Loopback, &["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"]);
        assert_class(AddressClass::Loopback, &["64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"]);
    }

    #[test]
    fn private() {
        assert_class(AddressClass::Private, &["10.0.0.1", "192.168.1.1", "172.16.0.1", "172.31.255.255", "100.64.0.1"]);
        assert_class(AddressClass::Private, &["fc00::1", "fd12::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b:1::1"]);
    }

    #[test]
    fn link_local_among_them_the_clouds_metadata() {
        assert_class(AddressClass::LinkLocal, &["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"]);
    }

    #[test]
    fn special() {
        assert_class(AddressClass::Special, &["0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1"]);
        assert_class(AddressClass::Special, &["198.18.0.1", "203.0.113.9", "::", "ff02::1", "2001:db8::1", "2001::1"]);
        assert_class(AddressClass::Special, &["100::1", "4000::1"]);
    }
}
