//! The sections of the relay itself, each read whole before anything of it is missed.
//!
//! The ranges are those of `config/relay.default.toml`. A zero is in a range only where it means
//! something.

use std::time::Duration;

use super::files;
use super::reader::Reader;
use super::url::{parse_host, parse_port};
use super::{
    Admin, Apns, Authenticate, Duplicates, Enrolment, EnrolmentPolicy, Fcm, Feedback, Keys, Limits,
    Log, Pairing, PublicUrl, Rate, RatePair, Server, ServerTls, ServiceUrl, WebPush,
};

const SECONDS_PER_DAY: u64 = 86400;

const SERVICE_URL: &str = "a URL like https://push.example.com:443, without a path";

pub(super) fn server(r: &mut Reader) -> Option<Server> {
    let public_url = "a URL like https://push.example.com, without a path";
    let listen = r.address("server.listen");
    let public_url = r.parsed("server.public_url", PublicUrl::parse, public_url);
    let connections_max = r.integer("server.connections_max", 1..=1_000_000);
    let streams_per_connection_max = r.integer("server.streams_per_connection_max", 1..=10_000);
    let requests_per_connection_max =
        r.integer("server.requests_per_connection_max", 1..=1_000_000_000);
    let idle_timeout = r.seconds("server.idle_timeout_s", 1..=SECONDS_PER_DAY);
    // hyper keeps no smaller buffer than 8192 for HTTP/1.1.
    let header_bytes_max = r.integer("server.header_bytes_max", 8192..=1_048_576);
    let header_timeout = r.milliseconds("server.header_timeout_ms", 100..=600_000);
    let body_bytes_max = r.integer("server.body_bytes_max", 4096..=16_777_216);
    let body_timeout = r.milliseconds("server.body_timeout_ms", 100..=600_000);
    let request_timeout = r.milliseconds("server.request_timeout_ms", 100..=600_000);
    let in_flight_max = r.integer("server.in_flight_max", 1..=1_000_000);
    let targets_max = r.integer("server.targets_max", 1..=1000);
    let grpc_streams_per_sender_max = r.integer("server.grpc_streams_per_sender_max", 1..=10_000);
    let grpc_stream_messages_max = r.integer("server.grpc_stream_messages_max", 1..=10_000);
    let grpc_stream_age_max = r.seconds("server.grpc_stream_age_s_max", 1..=604_800);
    let drain_timeout = r.milliseconds("server.drain_timeout_ms", 1..=600_000);
    let tls = server_tls(r);
    Some(Server {
        listen: listen?,
        public_url: public_url?,
        tls,
        connections_max: connections_max?,
        streams_per_connection_max: streams_per_connection_max?,
        requests_per_connection_max: requests_per_connection_max?,
        idle_timeout: idle_timeout?,
        header_bytes_max: header_bytes_max?,
        header_timeout: header_timeout?,
        body_bytes_max: body_bytes_max?,
        body_timeout: body_timeout?,
        request_timeout: request_timeout?,
        in_flight_max: in_flight_max?,
        targets_max: targets_max?,
        grpc_streams_per_sender_max: grpc_streams_per_sender_max?,
        grpc_stream_messages_max: grpc_stream_messages_max?,
        grpc_stream_age_max: grpc_stream_age_max?,
        drain_timeout: drain_timeout?,
    })
}

/// Gives nothing where neither file is set, and where a fault was noted.
fn server_tls(r: &mut Reader) -> Option<ServerTls> {
    const CERTIFICATE: &str = "server.tls.certificate_file";
    const KEY: &str = "server.tls.key_file";
    let (certificate_file, key_file) = match (r.optional_path(CERTIFICATE), r.optional_path(KEY)) {
        (Some(certificate_file), Some(key_file)) => (certificate_file, key_file),
        (Some(_), None) => {
            r.fault(KEY, format!("is required where {CERTIFICATE} is set"));
            return None;
        }
        (None, Some(_)) => {
            r.fault(CERTIFICATE, format!("is required where {KEY} is set"));
            return None;
        }
        (None, None) => return None,
    };
    let chain = r.note(CERTIFICATE, files::read_text(&certificate_file));
    let key = r.secret_file(KEY, &key_file);
    let checked = files::check_certificate_and_key(chain?.expose(), key?.expose());
    let blamed =
        if matches!(checked, Err(files::FileFault::NoCertificate)) { CERTIFICATE } else { KEY };
    r.note(blamed, checked)?;
    Some(ServerTls { certificate_file, key_file })
}

pub(super) fn admin(r: &mut Reader) -> Option<Admin> {
    Some(Admin { listen: r.address("admin.listen")? })
}

pub(super) fn log(r: &mut Reader) -> Option<Log> {
    let level =
        |text: &str| ["error", "warn", "info", "debug"].contains(&text).then(|| text.to_owned());
    let json = |text: &str| match text {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    };
    let level = r.parsed("log.level", level, "error, warn, info or debug");
    let json = r.parsed("log.format", json, "text or json");
    let repeat = r.seconds("log.repeat_s", 1..=86_400);
    Some(Log { level: level?, json: json?, repeat: repeat? })
}

pub(super) fn keys(r: &mut Reader) -> Option<Keys> {
    let directory = r.path("keys.directory");
    let reload_interval = r.seconds("keys.reload_interval_s", 1..=60);
    Some(Keys { directory: directory?, reload_interval: reload_interval? })
}

pub(super) fn authenticate(r: &mut Reader) -> Option<Authenticate> {
    let entries_max = r.integer("authenticate.token_cache_entries_max", 1..=10_000_000);
    let lifetime_max = r.seconds("authenticate.token_lifetime_s_max", 60..=SECONDS_PER_DAY);
    let clock_skew = r.seconds("authenticate.clock_skew_s", 0..=600);
    Some(Authenticate {
        token_cache_entries_max: entries_max?,
        token_lifetime_max: lifetime_max?,
        clock_skew: clock_skew?,
    })
}

pub(super) fn enrolment(r: &mut Reader) -> Option<Enrolment> {
    let policy = |text: &str| match text {
        "token" => Some(EnrolmentPolicy::Token),
        "open" => Some(EnrolmentPolicy::Open),
        _ => None,
    };
    Some(Enrolment { policy: r.parsed("enrolment.policy", policy, "token or open")? })
}

pub(super) fn pairing(r: &mut Reader) -> Option<Pairing> {
    let days: Option<u64> = r.integer("pairing.handle_lifetime_days", 1..=3650);
    let per_address = r.integer("pairing.proofs_per_address_per_hour", 1..=1000);
    let per_minute = r.integer("pairing.proofs_per_minute", 1..=1_000_000);
    Some(Pairing {
        handle_lifetime: Duration::from_secs(days? * SECONDS_PER_DAY),
        proofs_per_address_per_hour: per_address?,
        proofs_per_minute: per_minute?,
    })
}

pub(super) fn limits(r: &mut Reader) -> Option<Limits> {
    let messages_in_flight_max = r.integer("limits.messages_in_flight_max", 10..=1_000_000);
    let everybody = rate_pair(r, "everybody");
    let sender = rate_pair(r, "sender");
    let device = rate_pair(r, "device");
    let keys_max = r.integer("limits.keys_max", 100..=10_000_000);
    Some(Limits {
        messages_in_flight_max: messages_in_flight_max?,
        everybody: everybody?,
        sender: sender?,
        device: device?,
        keys_max: keys_max?,
    })
}

fn rate_pair(r: &mut Reader, whose: &str) -> Option<RatePair> {
    let mut rate = |class: &str| {
        let key = |what: &str| format!("limits.{whose}.{class}_{what}");
        let per_minute = r.integer(&key("per_minute"), 1..=1_000_000_000);
        let burst = r.integer(&key("burst"), 1..=1_000_000_000);
        Some(Rate { per_minute: per_minute?, burst: burst? })
    };
    let (ordinary, alarm) = (rate("ordinary"), rate("alarm"));
    Some(RatePair { ordinary: ordinary?, alarm: alarm? })
}

pub(super) fn feedback(r: &mut Reader) -> Option<Feedback> {
    let hold_max = r.seconds("feedback.hold_s_max", 0..=SECONDS_PER_DAY);
    let device_holds_max = r.integer("feedback.device_holds_max", 1..=10_000_000);
    let gone_burst_max = r.integer("feedback.gone_burst_max", 1..=1_000_000);
    let gone_share_percent_max = r.integer("feedback.gone_share_percent_max", 1..=99);
    Some(Feedback {
        hold_max: hold_max?,
        device_holds_max: device_holds_max?,
        gone_burst_max: gone_burst_max?,
        gone_share_percent_max: gone_share_percent_max?,
    })
}

pub(super) fn duplicates(r: &mut Reader) -> Option<Duplicates> {
    let entries_max = r.integer("duplicates.entries_max", 1..=100_000_000);
    let lifetime = r.seconds("duplicates.lifetime_s", 1..=SECONDS_PER_DAY);
    Some(Duplicates { entries_max: entries_max?, lifetime: lifetime? })
}

pub(super) fn apns(r: &mut Reader) -> Option<Apns> {
    let production_url = r.parsed("apns.production_url", ServiceUrl::parse, SERVICE_URL);
    let sandbox_url = r.parsed("apns.sandbox_url", ServiceUrl::parse, SERVICE_URL);
    let ca_file = r.optional_file("apns.ca_file", files::check_authorities);
    Some(Apns { production_url: production_url?, sandbox_url: sandbox_url?, ca_file })
}

pub(super) fn fcm(r: &mut Reader) -> Option<Fcm> {
    let base_url = r.parsed("fcm.base_url", ServiceUrl::parse, SERVICE_URL);
    let ca_file = r.optional_file("fcm.ca_file", files::check_authorities);
    Some(Fcm { base_url: base_url?, ca_file })
}

pub(super) fn webpush(r: &mut Reader) -> Option<WebPush> {
    let host = |text: &str| {
        let (dot, name) = text.strip_prefix('.').map_or(("", text), |name| (".", name));
        parse_host(name).map(|host| format!("{dot}{host}"))
    };
    let origin = |text: &str| {
        let (host, port) = text.split_once(':')?;
        Some(format!("{}:{}", parse_host(host)?, parse_port(port)?))
    };
    let allow_hosts = r.list("webpush.allow_hosts", host, "host names, or .suffix");
    let allow_origins = r.list("webpush.danger_allow_origins", origin, "host:port pairs");
    let ca_file = r.optional_file("webpush.ca_file", files::check_authorities);
    let origins_max = r.integer("webpush.origins_max", 1..=10_000);
    if allow_origins.as_ref().is_some_and(|origins| !origins.is_empty()) {
        let text = "lets messages go to any address, even on this machine: for tests alone";
        r.warn("webpush.danger_allow_origins", text);
    }
    Some(WebPush {
        allow_hosts: allow_hosts?,
        danger_allow_origins: allow_origins?,
        ca_file,
        origins_max: origins_max?,
    })
}

/// Notes what two sections together make impossible.
pub(super) fn check_together(r: &mut Reader, server: &Server, admin: &Admin) {
    let (doors, admin) = (server.listen, admin.listen);
    let any = doors.ip().is_unspecified() || admin.ip().is_unspecified();
    if doors.port() == admin.port() && doors.port() != 0 && (any || doors.ip() == admin.ip()) {
        r.fault("admin.listen", "must have another port than server.listen");
    }
}
