//! The way out: which addresses may be dialled, who knows them, and through what.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::counts::FaultKind;
use crate::config::Proxy;

/// The way to a push service.
#[derive(Clone, Debug)]
pub struct Egress {
    /// Which addresses may be dialled.
    pub guard: AddressGuard,
    /// Through which proxy; none dials directly.
    pub proxy: Option<Arc<Proxy>>,
    /// Who knows the addresses of a name.
    pub names: Names,
}

/// Which addresses may be dialled.
#[derive(Clone, Copy, Debug)]
pub enum AddressGuard {
    /// Any address: the origin comes from the operator.
    Any,
    /// Only addresses for which the function says "public": the origin comes from a caller.
    /// One address that is not refuses the whole dial.
    PublicOnly(fn(IpAddr) -> bool),
}

/// Gives the addresses of a name.
pub type NameTable = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// Who knows the addresses of a name; it is asked for each dial.
#[derive(Clone)]
pub enum Names {
    /// The system.
    System,
    /// A function: for a push service that has no name of its own.
    Table(Arc<NameTable>),
}

// === impl Egress ===

impl Egress {
    /// Goes straight to addresses that the system knows.
    pub const fn direct(guard: AddressGuard) -> Self {
        Self { guard, proxy: None, names: Names::System }
    }
}

// === impl AddressGuard ===

impl AddressGuard {
    /// Whether the proxy may look up the name: it may, where no address is forbidden.
    pub(super) const fn is_open(self) -> bool {
        matches!(self, Self::Any)
    }

    pub(super) fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOnly(is_public) => is_public(address),
        }
    }
}

// === impl Names ===

impl Names {
    pub(super) async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, FaultKind> {
        let addresses: Vec<IpAddr> = match self {
            Self::System => {
                let found = tokio::net::lookup_host((host, 0)).await;
                found.map_err(|_| FaultKind::Dns)?.map(|address| address.ip()).collect()
            }
            Self::Table(table) => table(host),
        };
        if addresses.is_empty() { Err(FaultKind::Dns) } else { Ok(addresses) }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "System",
            Self::Table(_) => "Table",
        })
    }
}
