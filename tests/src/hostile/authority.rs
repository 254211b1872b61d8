//! Certificates of a cluster of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The name that coordinators' certificates carry.
const COORDINATOR: &str = "coordinator.plimsoll";

/// An authority, a coordinator's certificate and a client's, as PEM files of one folder.
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes them in `folder`.
    ///
    /// # Panics
    /// Where the folder cannot be written.
    pub fn create(folder: &Path) -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("signed");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("written");
        for (file, names) in [("server", vec!["localhost", COORDINATOR]), ("client", vec!["ada"])] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let certificate = rcgen::CertificateParams::new(names).expect("names").signed_by(&key, &issuer);
            let at = |ending: &str| folder.join(format!("{file}.{ending}"));
            std::fs::write(at("crt"), certificate.expect("signed").pem()).expect("written");
            std::fs::write(at("key"), key.serialize_pem()).expect("written");
            let owner_only = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(at("key"), owner_only).expect("set");
        }
        Authority { folder: folder.to_owned() }
    }

    /// One of its files: `ca.pem`, `server.crt`, `server.key`, `client.crt`, `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
