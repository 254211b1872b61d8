//! The messages of `proto/xds` against those that the Python client ships.

use tokio::process::Command;

use crate::installed::Program;

#[tokio::test]
async fn every_message_and_field_has_the_published_name_number_and_type() {
    let Some(python) = Program::Python.find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("descriptors.bin");
    std::fs::write(&set, plimsoll_xds::FILE_DESCRIPTOR_SET).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stock_clients/published.py");
    let ran = Command::new(python).arg(script).arg(&set).output().await.expect("started");
    let said = String::from_utf8_lossy(&ran.stdout);
    let compared = said.strip_prefix("equal: ").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(
        compared.is_some_and(|compared| compared > 150),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
