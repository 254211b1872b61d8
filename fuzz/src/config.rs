//! Configuration files of coordinators.

use plimsoll_coordinator::config::CoordinatorConfig;

/// Reads the input as a configuration file, and checks what was read. What is refused is refused with words.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match CoordinatorConfig::from_toml("input.toml", text) {
        Ok(config) => {
            if let Err(error) = config.validate() {
                assert!(!error.to_string().is_empty());
            }
        }
        Err(error) => assert!(error.to_string().contains("input.toml"), "{error}"),
    }
}

/// Files with every kind of value.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "",
        "node_id = 3\ncluster = \"lab\"\nlisten = \"127.0.0.1:7420\"\ndata_dir = \"/var/lib/plimsoll\"\n",
        "peers = [\"a:1\", \"b:2\"]\nbootstrap = true\n[timings]\nelection_min_ms = 300\nelection_max_ms = 600\n",
        "[tls]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n",
        "[limits]\nmemory_bytes = 1000000000\n",
        "node_id = -1\n",
        "node_id = 99999999999999999999\n",
        "listen = \"0.0.0.0:1\"\nno_such_key = 1\n",
        "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ];
    files.iter().map(|file| file.as_bytes().to_vec()).collect()
}
