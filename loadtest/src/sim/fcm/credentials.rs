//! What Google gives a publisher: a service account's key file.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use serde_json::json;
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
}
