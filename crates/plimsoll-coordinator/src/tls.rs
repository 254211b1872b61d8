//! Mutual TLS from PEM files: one material for the client port, the peer port, HTTP, and calls to other coordinators.
//!
//! Every certificate is signed by the cluster's authority. A coordinator's certificate carries the DNS name
//! [`COORDINATOR_NAME`] beside its host names: that is how coordinators know each other, on both sides, wherever they
//! run. Who holds another certificate is a client: its first other DNS name (or URI) is the actor in the ledger.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::{ConfigError, TlsFiles};

/// DNS name that every coordinator's certificate carries, and no other certificate does.
pub const COORDINATOR_NAME: &str = "coordinator.plimsoll";

/// Longest TLS handshake.
pub const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Certificates and key of this coordinator, read and checked.
#[derive(Clone)]
pub struct TlsMaterial {
    ca_pem: Vec<u8>,
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
    grpc: Arc<rustls::ServerConfig>,
    http: Arc<rustls::ServerConfig>,
}

impl TlsMaterial {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// The first file that cannot be read or used, with what is wrong: not PEM, a key that others may read, a
    /// certificate without [`COORDINATOR_NAME`], a key of another certificate.
    pub fn load(files: &TlsFiles) -> Result<TlsMaterial, ConfigError> {
        check_private(&files.key)?;
        let (ca_pem, cert_pem, key_pem) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
        let authorities = certificates(&files.ca, &ca_pem)?;
        let chain = certificates(&files.cert, &cert_pem)?;
        if !chain.first().is_some_and(|cert| names(cert).iter().any(|name| name == COORDINATOR_NAME)) {
            let message = format!("a coordinator's certificate must carry the DNS name {COORDINATOR_NAME}");
            return Err(ConfigError::new(files.cert.display().to_string(), message));
        }
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|error| wrong(&files.key, format!("not a private key in PEM form: {error}")))?;
        let mut grpc = server_config(files, authorities, chain, key)?;
        let mut http = grpc.clone();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsMaterial { ca_pem, cert_pem, key_pem, grpc: Arc::new(grpc), http: Arc::new(http) })
    }

    /// For gRPC listeners: clients must show a certificate of the authority.
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.grpc)
    }

    /// For calls to other coordinators: whatever the address, the other side must be a coordinator.
    pub fn peer(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.identity())
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .domain_name(COORDINATOR_NAME)
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// For the HTTP listener: clients must show a certificate of the authority.
    pub fn http(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.http)
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.cert_pem, &self.key_pem)
    }
}

/// Names in a certificate: DNS names, then URIs; empty where it cannot be read.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_dns_names().chain(parsed.valid_uri_names()).map(str::to_owned).collect()
}

/// True where a verified certificate is a coordinator's.
pub fn is_coordinator(certificate: &CertificateDer<'_>) -> bool {
    names(certificate).iter().any(|name| name == COORDINATOR_NAME)
}

/// Who holds a verified certificate, as the ledger calls it: its first name, or a fingerprint where it has none.
pub fn actor(certificate: &CertificateDer<'_>) -> String {
    let name = names(certificate).into_iter().find(|name| name != COORDINATOR_NAME);
    name.unwrap_or_else(|| format!("cert:{}", &blake3::hash(certificate).to_hex()[..16]))
}

fn server_config(
    files: &TlsFiles,
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| wrong(&files.ca, format!("not an authority: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| wrong(&files.ca, error.to_string()))?;
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.cert, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.key, format!("does not go with {}: {error}", files.cert.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| wrong(path, format!("cannot read it: {error}")))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, "holds no certificate in PEM form")),
        Err(error) => Err(wrong(path, format!("not PEM: {error}"))),
    }
}

/// A key that others may read is no secret.
#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(path).map_err(|error| wrong(path, format!("cannot read it: {error}")))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(path, format!("may be read by others (mode {mode:04o}): chmod 0600 it")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), ConfigError> {
    Ok(())
}

fn wrong(path: &Path, message: impl Into<String>) -> ConfigError {
    ConfigError::new(path.display().to_string(), message)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An authority with certificates for a coordinator and a client, in a folder.
    pub(crate) struct TestAuthority {
        pub(crate) folder: tempfile::TempDir,
        issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    }

    impl TestAuthority {
        pub(crate) fn new() -> TestAuthority {
            let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = rcgen::KeyPair::generate().expect("a key");
            let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("signed");
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
            TestAuthority { folder, issuer }
        }

        pub(crate) fn issue(&self, file: &str, names: &[&str]) -> TlsFiles {
            let key = rcgen::KeyPair::generate().expect("a key");
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = rcgen::CertificateParams::new(names).expect("names");
            let cert = params.signed_by(&key, &self.issuer).expect("signed");
            let at = |ending: &str| self.folder.path().join(format!("{file}.{ending}"));
            std::fs::write(at("crt"), cert.pem()).expect("written");
            std::fs::write(at("key"), key.serialize_pem()).expect("written");
            std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).expect("set");
            TlsFiles { ca: self.folder.path().join("ca.pem"), cert: at("crt"), key: at("key") }
        }
    }

    #[test]
    fn a_good_set_loads_and_names_are_read() {
        let authority = TestAuthority::new();
        let files = authority.issue("c1", &["localhost", COORDINATOR_NAME]);
        TlsMaterial::load(&files).expect("good");
        let client = authority.issue("ada", &["ada"]);
        let pem = std::fs::read(&client.cert).expect("read");
        let certificate = CertificateDer::from_pem_slice(&pem).expect("PEM");
        assert_eq!(actor(&certificate), "ada");
        assert!(!is_coordinator(&certificate));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let authority = TestAuthority::new();
        let message = |files: &TlsFiles| TlsMaterial::load(files).err().expect("refused").to_string();
        let client = authority.issue("ada", &["ada"]);
        assert!(message(&client).contains(COORDINATOR_NAME));
        let good = authority.issue("c1", &[COORDINATOR_NAME]);
        let other = authority.issue("c2", &[COORDINATOR_NAME]);
        assert!(message(&TlsFiles { key: other.key, ..good.clone() }).contains("does not go with"));
        std::fs::set_permissions(&good.key, std::fs::Permissions::from_mode(0o640)).expect("set");
        assert!(message(&good).contains("0640"));
        assert!(
            message(&TlsFiles { ca: "/nowhere".into(), ..authority.issue("c3", &[COORDINATOR_NAME]) })
                .contains("/nowhere")
        );
    }
}
