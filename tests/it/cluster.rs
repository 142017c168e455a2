//! A real PostgreSQL server in a folder of its own: on a unix socket, and on TCP with TLS.
//!
//! PostgreSQL refuses to run as root, so under root it is the user postgres, or nobody. Its
//! programs are Debian's, or those of the path; `make postgres` installs them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sns_loadtest::ca::TestCa;
use sns_relay::config::{self, Config};
use tempfile::TempDir;
use tokio::time;

use crate::house::free_address;
use crate::wire::PATIENCE;

const PASSWORD: &str = "the-password-of-the-cluster";

/// A server that is stopped when the last one lets go of it.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    owner: Option<Owner>,
    programs: PathBuf,
    databases: AtomicU32,
    child: Mutex<Option<Child>>,
}

/// Whom the server runs as.
#[derive(Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

/// One database of a cluster.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) cluster: Arc<Cluster>,
    name: String,
}

// === impl Cluster ===

impl Cluster {
    /// Gives the server that tests share, as long as one of them runs.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<Cluster>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Self::start().await;
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// Makes a server of one's own.
    pub(crate) async fn start() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs().expect("PostgreSQL's server is missing: make postgres");
        let owner = owner();
        let port = free_address().port();
        let (databases, child) = (AtomicU32::new(0), Mutex::new(None));
        let cluster = Arc::new(Self { folder, port, owner, programs, databases, child });
        cluster.initialise();
        cluster.run().await;
        cluster
    }

    fn initialise(&self) {
        let ca = TestCa::new().unwrap();
        let certificate = ca.issue_server().unwrap();
        fs::write(self.ca_file(), ca.pem()).unwrap();
        fs::write(self.password_file(), PASSWORD).unwrap();
        fs::set_permissions(self.password_file(), fs::Permissions::from_mode(0o600)).unwrap();
        self.give_away(self.folder.path());
        self.give_away(&self.password_file());
        let made = self
            .command("initdb")
            .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--username=relay"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"])
            .arg(self.password_file())
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let access = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(self.data().join("pg_hba.conf"), access).unwrap();
        for (name, pem) in
            [("server.crt", certificate.certificate_pem), ("server.key", certificate.key_pem)]
        {
            let file = self.data().join(name);
            fs::write(&file, pem).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            self.give_away(&file);
        }
    }

    /// Starts the server on its files, and waits until it answers.
    pub(crate) async fn run(&self) {
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-c", "ssl=on"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=16MB"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let up = async {
            while self.try_query("postgres", "SELECT 1").await.is_err() {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(PATIENCE, up).await.expect("the server starts");
    }

    /// Ends the server at once, as a crash does (SIGQUIT), and waits until it is gone.
    pub(crate) fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let id = child.id().to_string();
            let killed = Command::new("kill").args(["-QUIT", &id]).status().unwrap();
            assert!(killed.success());
            child.wait().unwrap();
        }
    }

    /// Makes an empty database.
    pub(crate) async fn database(self: &Arc<Self>) -> Database {
        let name = format!("relay{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.try_query("postgres", &format!("CREATE DATABASE {name}")).await.unwrap();
        Database { cluster: Arc::clone(self), name }
    }

    async fn try_query(&self, name: &str, text: &str) -> Result<(), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).port(self.port).user("relay").dbname(name);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let done = client.batch_execute(text).await;
        connection.abort();
        done
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.owner {
            None => Command::new(program),
            Some(Owner { user, group }) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn give_away(&self, path: &Path) {
        if let Some(Owner { user, group }) = self.owner {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Database ===

impl Database {
    /// Gives the keys of section `store` for TCP and TLS.
    pub(crate) fn keys(&self) -> [(&'static str, String); 3] {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let port = self.cluster.port;
        [
            ("store.url", format!("postgresql://relay@localhost:{port}/{}", self.name)),
            ("store.ca_file", path(self.cluster.ca_file())),
            ("store.password_file", path(self.cluster.password_file())),
        ]
    }

    /// Gives the URL by the server's socket.
    pub(crate) fn socket_url(&self) -> String {
        let folder = self.cluster.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgresql://relay@{folder}:{}/{}", self.cluster.port, self.name)
    }

    /// Runs a statement with the server's own rights.
    pub(crate) async fn execute(&self, text: &str) {
        self.cluster.try_query(&self.name, text).await.unwrap();
    }
}

/// Gives the section `store` of a configuration with some keys and the defaults of the rest.
pub(crate) fn section(keys: &[(&'static str, String)]) -> config::Store {
    match Config::load(None, variables(keys)) {
        Ok(config) => config.store,
        Err(faults) => panic!("{faults}"),
    }
}

/// Gives what a configuration without a file needs beside some keys.
fn variables(keys: &[(&'static str, String)]) -> impl Iterator<Item = (String, String)> {
    let name = |key: &str| format!("SNS_RELAY__{}", key.to_uppercase().replace('.', "__"));
    keys.iter().map(move |(key, value)| (name(key), value.clone())).collect::<Vec<_>>().into_iter()
}

/// Debian keeps each version in a folder of its own; the newest is taken.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    debian.max().into_iter().chain(path).find(|folder| folder.join("initdb").is_file())
}

fn owner() -> Option<Owner> {
    let number = |arguments: &[&str]| {
        let told = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(told.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if number(&["-u"]) != Some(0) {
        return None;
    }
    let of =
        |name: &str| Some(Owner { user: number(&["-u", name])?, group: number(&["-g", name])? });
    of("postgres").or_else(|| of("nobody"))
}
