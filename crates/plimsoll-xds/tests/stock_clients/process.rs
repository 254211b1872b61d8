//! A client that runs until it is told to end, and then says how its calls went.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::control::{Control, SERVICE};
use crate::installed::{Program, node_modules};

/// Interpreters start slowly where others build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A gRPC client that calls `xds:///model-a` all the time.
pub(crate) struct Caller {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _folder: TempDir,
}

impl Caller {
    /// Starts it, and returns when its first call has come back. None where the program is absent.
    pub(crate) async fn start(program: Program, control: &Control) -> Option<Caller> {
        let path = program.find()?;
        let folder = tempfile::tempdir().expect("a folder");
        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, bootstrap_of(control).to_string()).expect("written");
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock_clients");
        let script = scripts.join(if matches!(program, Program::Python) { "caller.py" } else { "caller.js" });
        let mut child = Command::new(path)
            .arg(script)
            .arg(format!("xds:///{SERVICE}"))
            .env("GRPC_XDS_BOOTSTRAP", &bootstrap)
            .env("NODE_PATH", node_modules())
            // Node weighs by reports only when it is asked to.
            .env("GRPC_EXPERIMENTAL_XDS_WRR_LB", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut caller = Caller { child, input, output, _folder: folder };
        assert_eq!(caller.line().await, "ready");
        Some(caller)
    }

    /// Ends it. What it says: `calls`, and `errors` by their text.
    pub(crate) async fn end(mut self) -> Value {
        drop(self.input);
        let said =
            timeout(PATIENCE, self.output.next_line()).await.expect("in time").expect("read").expect("said");
        timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("ended");
        serde_json::from_str(&said).expect("JSON")
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.output.next_line()).await.expect("in time");
        line.expect("read").expect("the client goes on")
    }
}

fn bootstrap_of(control: &Control) -> Value {
    json!({
        "xds_servers": [{
            "server_uri": control.address.to_string(),
            "channel_creds": [{ "type": "insecure" }],
            "server_features": ["xds_v3"],
        }],
        // Node insists on a locality.
        "node": { "id": "caller-1", "locality": {} },
    })
}
