//! The guard against server-side request forgery: which hosts, ports and addresses we ever talk to.
//!
//! An endpoint comes from a browser by way of an app, so whoever pairs could point us at our own
//! network. The host must be on the operator's list, the port must be 443, and the address that the
//! name resolves to (and that the pool then dials) must be public. `danger_allow_origins` are
//! let past all three, for tests. Never compares URLs as text: only parsed hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::provider::upstream::AddressGuard;
use crate::push::Endpoint;

/// The operator's list of push services.
#[derive(Debug, Clone)]
pub struct HostGuard {
    exact: Vec<String>,
    /// With the leading dot.
    suffixes: Vec<String>,
    danger_origins: Vec<String>,
}

/// IANA IPv4 Special-Purpose Address Registry, and multicast: first address and prefix length.
/// Blocks that are reachable but are no place for a push service (AS112, AMT) are in it too.
const NOT_PUBLIC_V4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // carrier-grade NAT
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, cloud metadata
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // IETF protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // AMT
    ([192, 88, 99, 0], 24),  // 6to4 relays
    ([192, 168, 0, 0], 16),  // private
    ([192, 175, 48, 0], 24), // AS112
    ([198, 18, 0, 0], 15),   // benchmarking
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and the limited broadcast
];

/// IPv6 gives out public addresses in this block alone (RFC 4291 §2.4). Outside lie loopback,
/// IPv4-mapped, NAT64, discard-only, unique local, link-local, segment routing and multicast.
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// IANA IPv6 Special-Purpose Address Registry, inside the public block.
const NOT_PUBLIC_V6: &[(Ipv6Addr, u32)] = &[
    // IETF protocol assignments: Teredo, benchmarking, ORCHID, drone tags and more
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),     // 6to4: carries an IPv4 address
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),     // documentation
];

// === impl HostGuard ===

impl HostGuard {
    /// Takes host names (exact, or `.suffix`) and `host:port` pairs that are let past the guard.
    pub fn new(allow_hosts: &[String], danger_allow_origins: &[String]) -> Self {
        let lower = allow_hosts.iter().map(|host| host.to_ascii_lowercase());
        let (suffixes, exact) = lower.partition(|host| host.starts_with('.'));
        let danger_origins =
            danger_allow_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
        Self { exact, suffixes, danger_origins }
    }

    /// Says whether messages may go to an endpoint.
    pub fn allows(&self, endpoint: &Endpoint) -> bool {
        self.addresses_of(endpoint).is_some()
    }

    /// Gives the rule for the addresses of an endpoint's host, if the endpoint is allowed.
    pub fn addresses_of(&self, endpoint: &Endpoint) -> Option<AddressGuard> {
        let (host, port) = (endpoint.host(), endpoint.port());
        if self.danger_origins.iter().any(|origin| is_origin(origin, host, port)) {
            return Some(AddressGuard::Any);
        }
        let listed = self.exact.iter().any(|exact| exact == host)
            || self.suffixes.iter().any(|suffix| host.ends_with(suffix.as_str()));
        (listed && port == 443 && !is_apples_api(host))
            .then_some(AddressGuard::PublicOnly(is_public))
    }
}

fn is_origin(origin: &str, host: &str, port: u16) -> bool {
    origin.rsplit_once(':').is_some_and(|(name, digits)| name == host && digits.parse() == Ok(port))
}

/// Apple asks for `*.push.apple.com` to be allowed, but there also lives the APNs provider API.
fn is_apples_api(host: &str) -> bool {
    host.starts_with("api") && host.ends_with(".push.apple.com")
}

/// Says whether an address is one of the public internet.
/// Source: the IANA special-purpose address registries (RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4
            .iter()
            .any(|(first, length)| in_v4(address, Ipv4Addr::from(*first), *length)),
        IpAddr::V6(address) => {
            in_v6(address, PUBLIC_V6.0, PUBLIC_V6.1)
                && !NOT_PUBLIC_V6.iter().any(|(first, length)| in_v6(address, *first, *length))
        }
    }
}

/// Both lengths of the tables are 3 or more, so no shift is by the whole width.
const fn in_v4(address: Ipv4Addr, first: Ipv4Addr, length: u32) -> bool {
    (address.to_bits() ^ first.to_bits()) >> (32 - length) == 0
}

const fn in_v6(address: Ipv6Addr, first: Ipv6Addr, length: u32) -> bool {
    (address.to_bits() ^ first.to_bits()) >> (128 - length) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).ok().unwrap()
    }

    #[test]
    fn special_addresses_are_not_public_up_to_their_edges() {
        let blocks = [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.31.196.0", "192.31.196.255"),
            ("192.52.193.0", "192.52.193.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("192.175.48.0", "192.175.48.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ];
        for (first, last) in blocks {
            let (first, last): (Ipv4Addr, Ipv4Addr) =
                (first.parse().unwrap(), last.parse().unwrap());
            assert!(!is_public(first.into()), "{first}");
            assert!(!is_public(last.into()), "{last}");
            for outside in [first.to_bits().checked_sub(1), last.to_bits().checked_add(1)] {
                if let Some(outside) = outside.map(Ipv4Addr::from_bits) {
                    assert!(is_public(outside.into()), "{outside}");
                }
            }
        }
        for address in ["1.1.1.1", "17.188.168.12", "142.250.74.42", "34.107.221.82"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn special_ipv6_addresses_are_not_public() {
        let special = [
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:1::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in special {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = [
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2620:149:af0::10",
            "2a00::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn hosts_are_allowed_by_name_or_dot_suffix_on_port_443() {
        let hosts = [
            "fcm.googleapis.com",
            ".push.services.mozilla.com",
            ".push.apple.com",
            ".notify.windows.com",
        ];
        let guard = HostGuard::new(&hosts.map(str::to_owned), &[]);
        let allowed = [
            "https://fcm.googleapis.com/fcm/send/x",
            "https://updates.push.services.mozilla.com/wpush/v2/x",
            "https://web.push.apple.com/x",
            "https://wns2-db5p.notify.windows.com/w/?token=x",
        ];
        for url in allowed {
            let guard = guard.addresses_of(&endpoint(url));
            assert!(matches!(guard, Some(AddressGuard::PublicOnly(_))), "{url}");
        }
        let refused = [
            "https://fcm.googleapis.com:8443/x",
            "https://a.fcm.googleapis.com/x",
            "https://fcm.googleapis.com.evil.example/x",
            "https://evil.example/fcm.googleapis.com/",
            "https://push.services.mozilla.com/x",
            "https://evilpush.services.mozilla.com/x",
            "https://api.push.apple.com/3/device/x",
            "https://api.sandbox.push.apple.com/x",
            "https://api-manage-broadcast.push.apple.com/x",
            "https://notify.windows.com.example/x",
            "https://127.0.0.1/x",
            "https://localhost/x",
        ];
        for url in refused {
            assert!(!guard.allows(&endpoint(url)), "{url}");
        }
    }

    #[test]
    fn a_danger_origin_is_let_past_port_and_address_and_nothing_else_is() {
        let guard = HostGuard::new(&[], &["localhost:8443".to_owned()]);
        let rule = guard.addresses_of(&endpoint("https://localhost:8443/x"));
        assert!(matches!(rule, Some(AddressGuard::Any)));
        for url in ["https://localhost/x", "https://localhost:8444/x", "https://a.localhost:8443/x"]
        {
            assert!(!guard.allows(&endpoint(url)), "{url}");
        }
    }
}
