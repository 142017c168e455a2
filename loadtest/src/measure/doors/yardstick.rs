//! What a relay is compared with: programs that forward and do nothing else, to the same simulated
//! APNs, under the same certificate.
//!
//! The bare forwarder is this program's own, built on the relay's own libraries. nginx is whatever
//! the machine has: before 1.29 it speaks HTTP/1.1 to an upstream, which APNs does not, so its gRPC
//! proxy is used, which is HTTP/2 with one request at a time on each connection.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::MeasureError;
use super::super::child::free_address;
use super::house::{House, text};
use super::process::{Cores, Process};
use crate::ca::ClientCertificate;
use crate::stage::{Stage, StageError};

/// The bundle of the stage's app.
const TOPIC: &str = "com.example.chat";
/// What APNs asks of every notification, beside its body.
pub(super) const APNS_HEADERS: [(&str, &str); 3] =
    [("apns-topic", TOPIC), ("apns-push-type", "alert"), ("apns-priority", "10")];
/// The device of every notification.
pub(crate) const DEVICE_PATH: &str =
    "/3/device/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Where Debian and others install what only root calls, and a user's PATH does not name.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Gives the program nginx: as told, or else by PATH, or where Debian puts it.
pub(crate) fn nginx(told: Option<&PathBuf>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_FOLDERS.iter().map(PathBuf::from);
    let mut places = env::split_paths(&path).chain(system).map(|folder| folder.join("nginx"));
    told.cloned().or_else(|| places.find(|program| program.is_file()))
}

// === impl House ===

impl House {
    /// Starts the bare forwarder.
    /// Errors: it does not start.
    pub(crate) async fn of_floor(
        program: &Path,
        is_tls: bool,
        cores: Cores,
    ) -> Result<House, MeasureError> {
        let stage = certified().await?;
        let file = |name: &str| text(&stage.folder().join(name));
        let (ca, identity) = (file("ca.pem")?, file("identity.pem")?);
        let (certificate, key) = (file("door.pem")?, file("door.key")?);
        let door = stage.ca.issue_server().map_err(StageError::from)?;
        fs::write(&certificate, door.certificate_pem)?;
        fs::write(&key, door.key_pem)?;
        let listen = free_address()?;
        let (listen_text, upstream) = (listen.to_string(), stage.apns.base_url().to_owned());
        let mut args = vec!["floor", "--listen", &listen_text, "--upstream", &upstream];
        args.extend(["--ca", &ca, "--identity", &identity, "--topic", TOPIC]);
        if is_tls {
            args.extend(["--certificate", &certificate, "--key", &key]);
        }
        let log_file = stage.folder().join("floor.log");
        let process = Process::start(program, &args, log_file, cores)?;
        House::with(stage, process, is_tls, listen).await
    }

    /// Starts nginx, in clear text, for HTTP/1.1 or for HTTP/2.
    /// Errors: it does not start.
    pub(crate) async fn of_nginx(
        program: &Path,
        is_http2: bool,
        cores: Cores,
    ) -> Result<House, MeasureError> {
        let stage = certified().await?;
        let folder = text(stage.folder())?;
        let listen = free_address()?;
        let door = if is_http2 { format!("{listen} http2") } else { listen.to_string() };
        let upstream = stage.apns.base_url().trim_start_matches("https://");
        let config_file = text(&stage.folder().join("nginx.conf"))?;
        fs::write(&config_file, nginx_config(&folder, &door, upstream))?;
        let args = ["-p", &folder, "-c", &config_file, "-e", "stderr"];
        let process = Process::start(program, &args, stage.folder().join("nginx.log"), cores)?;
        House::with(stage, process, false, listen).await
    }
}

/// A stage with a client certificate for APNs, in `identity.pem`.
/// Errors: the stage cannot be set.
pub(crate) async fn certified() -> Result<Stage, MeasureError> {
    let stage = Stage::set().await?;
    let identity = stage.ca.issue_client(TOPIC).map_err(StageError::from)?;
    let ClientCertificate { certificate_pem, key_pem, .. } = identity;
    fs::write(stage.folder().join("identity.pem"), certificate_pem + &key_pem)?;
    Ok(stage)
}

/// One process, no log, connections that are kept on both sides.
fn nginx_config(folder: &str, door: &str, upstream: &str) -> String {
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 1000000000; client_body_buffer_size 16k;
            client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
            uwsgi_temp_path {folder}; scgi_temp_path {folder};
            upstream apns {{
                server {upstream}; keepalive 512; keepalive_requests 1000000000;
            }}
            server {{
                listen {door};
                location / {{
                    rewrite ^ {DEVICE_PATH} break;
                    grpc_set_header apns-topic {TOPIC};
                    grpc_set_header apns-push-type alert;
                    grpc_set_header apns-priority 10;
                    grpc_ssl_certificate {folder}/identity.pem;
                    grpc_ssl_certificate_key {folder}/identity.pem;
                    grpc_ssl_trusted_certificate {folder}/ca.pem;
                    grpc_ssl_verify on; grpc_ssl_name localhost; grpc_ssl_server_name on;
                    grpc_pass grpcs://apns;
                }}
            }}
        }}"
    )
}
