//! A coordinator with mutual TLS: who has a certificate of its authority is served, and nobody else.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PLIMSOLL: &str = env!("CARGO_BIN_EXE_plimsoll");

struct Authority {
    folder: tempfile::TempDir,
    name: &'static str,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(name: &'static str) -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer =
            rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, name, issuer }
    }

    /// Flags with a certificate of these names.
    fn flags(&self, names: &[&str]) -> Vec<String> {
        let key = rcgen::KeyPair::generate().unwrap();
        let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let cert = rcgen::CertificateParams::new(owned).unwrap().signed_by(&key, &self.issuer).unwrap();
        let at = |ending: &str| self.folder.path().join(format!("{}-{}.{ending}", self.name, names[0]));
        std::fs::write(at("crt"), cert.pem()).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = |path: PathBuf| path.display().to_string();
        let ca = text(self.folder.path().join("ca.pem"));
        vec!["--ca".to_owned(), ca, "--cert".to_owned(), text(at("crt")), "--key".to_owned(), text(at("key"))]
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(home: &Path, flags: &[String], arguments: &[&str]) -> Output {
    Command::new(PLIMSOLL).args(flags).args(arguments).env("PLIMSOLL_HOME", home).output().unwrap()
}

#[test]
fn only_certificates_of_the_authority_are_served() {
    let (lab, foreign) = (Authority::new("lab"), Authority::new("foreign"));
    let home = tempfile::tempdir().unwrap();
    let arguments =
        ["coordinator", "--listen", "127.0.0.1:0", "--ephemeral", "--bootstrap", "-o", "jsonl", "-q"];
    let mut child = Command::new(PLIMSOLL)
        .args(arguments)
        .args(lab.flags(&["coordinator.plimsoll", "localhost"]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _killed = Killed(child);
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ["--addr".to_owned(), told["address"].as_str().unwrap().to_owned()];
    let status = ["cluster", "status", "--timeout", "10s"];

    let ada = [&address[..], &lab.flags(&["ada"])].concat();
    let served = run(home.path(), &ada, &status);
    assert!(served.status.success(), "{}", String::from_utf8_lossy(&served.stderr));
    run(home.path(), &ada, &["reserve", "--cpu", "1"]);
    let events = String::from_utf8(run(home.path(), &ada, &["events", "-o", "csv"]).stdout).unwrap();
    assert!(!events.contains("local"), "nobody is called local under TLS: {events}");

    let quick = ["get", "nodes", "--timeout", "2s"];
    for flags in [Vec::new(), foreign.flags(&["ada"])] {
        let refused = run(home.path(), &[&address[..], &flags].concat(), &quick);
        assert_eq!(refused.status.code(), Some(8), "{flags:?}");
    }
}
