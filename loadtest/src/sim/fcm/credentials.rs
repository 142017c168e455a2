//! What Google gives a publisher: a service account's key file.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::SimError;
use super::super::apns::pem;

/// One service account of one project.
#[derive(Clone)]
pub struct FcmCredentials {
    /// The key file, JSON, with `token_uri` at the simulator.
    pub service_account_json: String,
    /// The project identifier.
    pub project_id: String,
    pub(crate) client_email: String,
    pub(crate) public_key: Vec<u8>,
}

impl FcmCredentials {
    /// Makes a service account with a new 2048-bit RSA key whose tokens come from this origin.
    pub fn generate(base_url: &str) -> Result<FcmCredentials, SimError> {
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| SimError::Key)?;
        let der = key.as_der().map_err(|_| SimError::Key)?;
        let project_id = format!("project-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let client_email = format!("relay@{project_id}.iam.gserviceaccount.com");
        let file = json!({
            "type": "service_account",
            "project_id": project_id,
            "private_key_id": Uuid::new_v4().simple().to_string(),
            "private_key": pem("PRIVATE KEY", der.as_ref()),
            "client_email": client_email,
            "client_id": "100000000000000000000",
            "token_uri": format!("{base_url}/token"),
        });
        Ok(FcmCredentials {
            service_account_json: file.to_string(),
            project_id,
            client_email,
            public_key: key.public_key().as_ref().to_vec(),
        })
    }

    /// Reads the key file of a service account that was made before.
    /// Errors: `Key`, where it is none.
    pub fn of_file(service_account_json: &str) -> Result<FcmCredentials, SimError> {
        let file: Value = serde_json::from_str(service_account_json).map_err(|_| SimError::Key)?;
        let text = |name: &str| file.get(name).and_then(Value::as_str).ok_or(SimError::Key);
        let der = PrivatePkcs8KeyDer::from_pem_slice(text("private_key")?.as_bytes());
        let der = der.map_err(|_| SimError::Key)?;
        let key = KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| SimError::Key)?;
        Ok(FcmCredentials {
            service_account_json: service_account_json.to_owned(),
            project_id: text("project_id")?.to_owned(),
            client_email: text("client_email")?.to_owned(),
            public_key: key.public_key().as_ref().to_vec(),
        })
    }
}
