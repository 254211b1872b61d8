//! A client that runs until it is told to end, and then says how its calls went.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::installed::{Program, node_modules};

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
    /// Starts it with these servers, the first that lives is asked, and returns when its first call has come back. None where the program is absent.
    pub(crate) async fn start(program: Program, servers: &[String]) -> Option<Caller> {
        let path = program.find()?;
        let folder = tempfile::tempdir().expect("a folder");
        let bootstrap = folder.path().join("bootstrap.json");
        std::fs::write(&bootstrap, bootstrap_of(servers).to_string()).expect("written");
        let (name, text) = match program {
            Program::Python => ("caller.py", include_str!("caller.py")),
            _ => ("caller.js", include_str!("caller.js")),
        };
        let script = folder.path().join(name);
        std::fs::write(&script, text).expect("written");
        let mut child = Command::new(path)
            .arg(script)
            .arg("xds:///model-a")
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

fn bootstrap_of(servers: &[String]) -> Value {
    let server = |address: &String| {
        json!({
            "server_uri": address,
            "channel_creds": [{ "type": "insecure" }],
            "server_features": ["xds_v3"],
        })
    };
    // Node insists on a locality.
    json!({
        "xds_servers": servers.iter().map(server).collect::<Vec<_>>(),
        "node": { "id": "caller-1", "locality": {} },
    })
}
