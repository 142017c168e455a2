//! The static table of RFC 7541, Appendix A.

/// Names and values; the first has the index 1.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Gives the first index of a name that requests use.
pub(super) fn index_of(name: &str) -> Option<usize> {
    Some(match name {
        ":authority" => 1,
        ":path" => 4,
        "authorization" => 23,
        "content-encoding" => 26,
        "content-length" => 28,
        "content-type" => 31,
        "user-agent" => 58,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shortcut is the first entry of that name.
    #[test]
    fn names_are_found_where_the_table_has_them() {
        let first = |name| STATIC.iter().position(|entry| entry.0 == name).map(|at| at + 1);
        let used = [":authority", ":path", "authorization", "content-encoding"];
        for name in used.into_iter().chain(["content-length", "content-type", "user-agent"]) {
            assert_eq!(index_of(name), first(name), "{name}");
        }
        assert_eq!(index_of("apns-topic"), None);
    }
}
