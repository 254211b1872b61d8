//! How the processes of a cluster, and the tests, reach its coordinators: in plain text on loopback, with certificates elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{COORDINATOR_NAME, ClientOptions, Dialer as _, TcpDialer, Tls};
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection, in plain text.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How coordinators are reached. The default: in plain text.
#[derive(Clone, Debug, Default)]
pub struct Access {
    files: Option<Arc<Files>>,
}

/// Certificates of one authority.
#[derive(Debug)]
struct Files {
    ca: PathBuf,
    coordinator: Pair,
    /// Agents, clients, the command line.
    client: Pair,
}

#[derive(Debug)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Access {
    /// With TLS: a new authority and its certificates, written into a folder that lives as long as they are used.
    ///
    /// # Errors
    /// Where they cannot be made or written.
    pub fn with_certificates(folder: &Path) -> Result<Access, String> {
        let made = Files::make(folder).map_err(|error| format!("certificates: {error}"))?;
        Ok(Access { files: Some(Arc::new(made)) })
    }

    /// Flags of a coordinator.
    pub fn coordinator_flags(&self) -> Vec<String> {
        self.files.as_ref().map(|files| files.flags(&files.coordinator)).unwrap_or_default()
    }

    /// Flags of everybody else.
    pub fn client_flags(&self) -> Vec<String> {
        self.files.as_ref().map(|files| files.flags(&files.client)).unwrap_or_default()
    }

    /// The same options of an SDK client, with this access.
    ///
    /// # Panics
    /// Where the certificates are gone.
    #[must_use]
    pub fn options(&self, options: ClientOptions) -> ClientOptions {
        ClientOptions { dialer: Arc::new(TcpDialer::new(self.tls())), ..options }
    }

    /// A channel that is connected when it is used.
    ///
    /// # Panics
    /// Where the address makes no sense, or the certificates are gone.
    pub fn channel(&self, address: &str) -> Channel {
        match self.tls() {
            Some(tls) => TcpDialer::new(Some(tls)).channel(address).expect("an address"),
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
                endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy()
            }
        }
    }

    fn tls(&self) -> Option<Tls> {
        let files = self.files.as_ref()?;
        let read = |path: &Path| std::fs::read(path).expect("written when this was made");
        let identity_pem = Some((read(&files.client.certificate), read(&files.client.key)));
        Some(Tls { ca_pem: Some(read(&files.ca)), identity_pem, server_name: None })
    }
}

impl Files {
    fn make(folder: &Path) -> Result<Files, Box<dyn std::error::Error>> {
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, issuer.pem())?;
        let pair = |name: &str, names: &[&str]| -> Result<Pair, Box<dyn std::error::Error>> {
            let key = rcgen::KeyPair::generate()?;
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let signed = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
            let certificate = folder.join(format!("{name}.crt"));
            let file = folder.join(format!("{name}.key"));
            std::fs::write(&certificate, signed.pem())?;
            std::fs::write(&file, key.serialize_pem())?;
            // Keys that others may read are refused.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            Ok(Pair { certificate, key: file })
        };
        let coordinator = pair("coordinator", &[COORDINATOR_NAME, "localhost"])?;
        let client = pair("client", &["chaos"])?;
        Ok(Files { ca, coordinator, client })
    }

    fn flags(&self, pair: &Pair) -> Vec<String> {
        let files = [("--ca", &self.ca), ("--cert", &pair.certificate), ("--key", &pair.key)];
        files.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]).collect()
    }
}
