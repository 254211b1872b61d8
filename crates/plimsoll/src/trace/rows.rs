//! Rows of fleets and workloads. Which columns a file has is read from its header, never from its name:
//! `sn,cpu_milli,memory_mib,gpu,model` (openb nodes), `name,cpu_milli,memory_mib,num_gpu,gpu_milli,...` (openb tasks),
//! `submit_s,run_s,gpus,vc` (philly jobs, `vc` or `queue` being the queue that they came through).

use std::collections::BTreeMap;
use std::path::Path;

use plimsoll_agent::SimulatedNode;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::inventory::Inventory;
use plimsoll_ledger::{Device, Gang, GpuAsk, GpuShare, Registration, Request, Requirements};
use plimsoll_types::Resources;

use super::packed;
use crate::error::CliError;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Latest moment and longest run, in seconds: 3,000 years, so that milliseconds never overflow.
const MAX_SECONDS: f64 = 1e11;

/// One node of a recorded fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// As the ledger has it: lower case.
    pub(crate) name: String,
    /// As the file has it, for the report.
    pub(crate) shown: String,
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: u32,
    pub(crate) model: String,
}

/// One task or job of a recorded workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WorkRow {
    pub(crate) name: String,
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: u32,
    /// Thousandths of one GPU where `gpus` is 1; 1000 is the whole.
    pub(crate) gpu_milli: u16,
    /// Allowed models; empty for any.
    pub(crate) models: Vec<String>,
    pub(crate) class: &'static str,
    /// Queue or virtual cluster that the row came through; empty where the file names none.
    pub(crate) queue: String,
    pub(crate) submit_s: f64,
    /// How long it runs once started; `None` for ever.
    pub(crate) run_s: Option<f64>,
}

impl NodeRow {
    /// The node as an agent would report it.
    pub(crate) fn registration(&self) -> Registration {
        let memory_bytes = device_memory_bytes(&self.model);
        let device = |index: u32| Device {
            uuid: format!("{}/gpu{index}", self.shown),
            model: self.model.clone(),
            memory_bytes,
            failed: false,
            mig: None,
        };
        Registration {
            name: self.name.clone(),
            incarnation: 1,
            capacity: Resources::new(self.cpu_millis, self.memory_bytes),
            devices: (0..self.gpus).map(device).collect(),
            self_fencing: true,
            ..Registration::default()
        }
    }
}

impl NodeRow {
    /// The node as an agent plays it: the very devices of [`NodeRow::registration`].
    pub(crate) fn simulated(&self, pool: &str) -> SimulatedNode {
        let gpus = FakeGpus::of(&self.model, device_memory_bytes(&self.model), self.gpus);
        let mut inventory = Inventory::simulated(&self.name, self.cpu_millis, self.memory_bytes, &gpus);
        for (device, played) in self.registration().devices.into_iter().zip(&mut inventory.gpus) {
            played.uuid = device.uuid;
        }
        SimulatedNode {
            name: self.name.clone(),
            pool: pool.to_owned(),
            inventory,
            extra: Resources::default(),
        }
    }
}

impl WorkRow {
    /// The request of this row on nodes with at most `gpus_per_node` GPUs: a larger job becomes a gang.
    pub(crate) fn request(&self, gpus_per_node: u32) -> Request {
        let members = self.gpus.div_ceil(gpus_per_node.max(1)).max(1);
        let per_member = self.gpus.div_ceil(members);
        let share = match self.gpu_milli {
            milli @ 1..1_000 if self.gpus == 1 => GpuShare::Milli(milli),
            _ => GpuShare::Whole,
        };
        let gpu = (self.gpus > 0).then(|| GpuAsk {
            count: per_member,
            share,
            min_device_memory_bytes: 0,
            models: self.models.clone(),
        });
        Request {
            name: self.name.clone(),
            pool: "default".to_owned(),
            class: self.class.to_owned(),
            tenant: self.queue.clone(),
            requirements: Requirements {
                amounts: Resources::new(self.cpu_millis, self.memory_bytes),
                gpu,
                ..Requirements::default()
            },
            gang: Gang { min_members: members, max_members: members, spread: false },
            ttl_ms: plimsoll_ledger::limits::MAX_TTL_MS,
            auto_confirm: true,
            ..Request::default()
        }
    }
}

/// Reads a fleet.
pub(crate) fn read_nodes(path: &Path) -> Result<Vec<NodeRow>, CliError> {
    let mut nodes = Vec::new();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    read(path, &["sn", "cpu_milli", "memory_mib", "gpu"], &[], |row| {
        let shown = row.text("sn")?.to_owned();
        let name = shown.to_ascii_lowercase();
        if let Some(first) = seen.insert(name.clone(), row.line) {
            return Err(row.wrong("sn", &format!("{shown:?} is there twice, first in line {first}")));
        }
        nodes.push(NodeRow {
            name,
            shown,
            cpu_millis: row.number("cpu_milli")?,
            memory_bytes: mebibytes(row.number("memory_mib")?),
            gpus: row.number("gpu")?,
            model: row.text("model").unwrap_or_default().to_ascii_lowercase(),
        });
        Ok(())
    })?;
    Ok(nodes)
}

/// Names of nodes in the file, by their names in the ledger.
pub(crate) fn node_names(nodes: &[NodeRow]) -> BTreeMap<String, String> {
    nodes.iter().map(|node| (node.name.clone(), node.shown.clone())).collect()
}

/// A fleet of equal nodes: `64x8` is 64 nodes of 8 GPUs.
pub(crate) fn uniform_fleet(text: &str) -> Result<Vec<NodeRow>, CliError> {
    let parsed =
        text.split_once('x').and_then(|(nodes, gpus)| Some((nodes.parse().ok()?, gpus.parse().ok()?)));
    let Some((nodes, gpus)) = parsed.filter(|(nodes, gpus): &(u32, u32)| *nodes > 0 && *gpus <= 256) else {
        return Err(CliError::usage(format!("{text:?} is not a fleet: write NODESxGPUS, as in 64x8")));
    };
    let node = |index: u32| NodeRow {
        name: format!("node-{index:04}"),
        shown: format!("node-{index:04}"),
        cpu_millis: 96_000,
        memory_bytes: 768 * GIB,
        gpus,
        model: "v100".to_owned(),
    };
    Ok((0..nodes).map(node).collect())
}

/// Reads a workload of either kind.
pub(crate) fn read_workload(path: &Path) -> Result<Vec<WorkRow>, CliError> {
    let mut rows = Vec::new();
    let openb: &[&str] = &["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];
    let philly: &[&str] = &["submit_s", "run_s", "gpus"];
    read(path, openb, philly, |row| {
        rows.push(if row.has("num_gpu") { openb_row(row)? } else { philly_row(row)? });
        Ok(())
    })?;
    Ok(rows)
}

fn openb_row(row: &Row<'_>) -> Result<WorkRow, CliError> {
    let created = row.seconds("creation_time")?.unwrap_or(0.0);
    let started = row.seconds("scheduled_time")?.unwrap_or(created);
    let deleted = row.seconds("deletion_time")?;
    let gpus = row.number("num_gpu")?;
    let spec = row.text("gpu_spec").unwrap_or_default();
    Ok(WorkRow {
        name: row.text("name")?.to_owned(),
        cpu_millis: row.number("cpu_milli")?,
        memory_bytes: mebibytes(row.number("memory_mib")?),
        gpus,
        // Empty where the file leaves out what goes without saying.
        gpu_milli: row.optional("gpu_milli")?.unwrap_or(if gpus > 0 { 1_000 } else { 0 }),
        models: spec.split('|').filter(|model| !model.is_empty()).map(str::to_ascii_lowercase).collect(),
        // Latency-sensitive first, best-effort last.
        class: match row.text("qos").unwrap_or_default() {
            "LS" => "high",
            "Burstable" => "low",
            "BE" => "batch",
            _ => "standard",
        },
        queue: row.queue(),
        submit_s: created,
        run_s: deleted.map(|deleted| (deleted - started.max(created)).max(0.0)),
    })
}

fn philly_row(row: &Row<'_>) -> Result<WorkRow, CliError> {
    Ok(WorkRow {
        name: row.text("name").map(str::to_owned).unwrap_or_else(|_| format!("job-{:06}", row.line - 1)),
        cpu_millis: 0,
        memory_bytes: 0,
        gpus: row.number("gpus")?,
        gpu_milli: 1_000,
        models: Vec::new(),
        class: "standard",
        queue: row.queue(),
        submit_s: row.seconds("submit_s")?.ok_or_else(|| row.wrong("submit_s", "is empty"))?,
        run_s: Some(row.seconds("run_s")?.ok_or_else(|| row.wrong("run_s", "is empty"))?),
    })
}

/// Memory of a device by model, from the vendors' data sheets; unnamed ones (G2, G3: Alibaba's own names) as A10 and A100.
fn device_memory_bytes(model: &str) -> u64 {
    let gib = match model {
        "p100" | "t4" | "v100m16" | "v100" => 16,
        "v100m32" => 32,
        "a10" | "g2" => 24,
        "a100" | "g3" | "h100" => 80,
        "h200" => 141,
        _ => 16,
    };
    gib * GIB
}

fn mebibytes(count: u64) -> u64 {
    count.saturating_mul(MIB)
}

/// Columns that are read where they are there.
const OPTIONAL: [&str; 9] =
    ["name", "model", "gpu_spec", "qos", "creation_time", "deletion_time", "scheduled_time", "queue", "vc"];

/// One row of a file, and where it is.
pub(super) struct Row<'a> {
    path: &'a Path,
    line: u64,
    columns: &'a BTreeMap<String, usize>,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    pub(super) fn text(&self, column: &str) -> Result<&str, CliError> {
        let field = self.columns.get(column).and_then(|index| self.record.get(*index)).map(str::trim);
        field.ok_or_else(|| self.wrong(column, "is missing"))
    }

    /// The queue that the row came through; empty where there is none.
    fn queue(&self) -> String {
        self.text("queue").or_else(|_| self.text("vc")).unwrap_or_default().to_owned()
    }

    pub(super) fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T, CliError> {
        let text = self.text(column)?;
        // Tables that went through other tools have whole numbers with a fraction of zero.
        let whole = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|b| b == b'0'));
        let parsed = text.parse().or_else(|error| match whole {
            Some((whole, _)) => whole.parse(),
            None => Err(error),
        });
        parsed.map_err(|_| self.wrong(column, &format!("{text:?} is not a whole number that fits")))
    }

    /// A time or a length; `None` where there is none.
    pub(super) fn seconds(&self, column: &str) -> Result<Option<f64>, CliError> {
        let text = self.text(column).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().ok().filter(|seconds: &f64| (0.0..=MAX_SECONDS).contains(seconds));
        parsed.map(Some).ok_or_else(|| {
            self.wrong(column, &format!("{text:?} is not a number of seconds from 0 to {MAX_SECONDS:e}"))
        })
    }

    fn optional<T: std::str::FromStr>(&self, column: &str) -> Result<Option<T>, CliError> {
        match self.text(column) {
            Err(_) | Ok("") => Ok(None),
            Ok(_) => self.number(column).map(Some),
        }
    }

    pub(super) fn wrong(&self, column: &str, what: &str) -> CliError {
        CliError::usage(format!("{}:{}: column {column}: {what}", self.path.display(), self.line))
    }
}

/// Reads a file of which the columns of `first` or of `second` are there, plain or packed by gzip.
pub(super) fn read(
    path: &Path,
    first: &[&str],
    second: &[&str],
    mut each: impl FnMut(&Row<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let doing = format!("cannot read {}", path.display());
    let file = packed::open(path).map_err(|error| CliError::local(&doing, error))?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(|error| unreadable(path, &error))?.clone();
    let mut columns: BTreeMap<String, usize> = BTreeMap::new();
    for (index, name) in header.iter().map(|name| name.trim().to_ascii_lowercase()).enumerate() {
        let is_read =
            OPTIONAL.contains(&name.as_str()) || first.iter().chain(second).any(|known| *known == name);
        if columns.insert(name.clone(), index).is_some() && is_read {
            return Err(CliError::usage(format!("{}:1: two columns are called {name}", path.display())));
        }
    }
    let complete =
        |wanted: &[&str]| !wanted.is_empty() && wanted.iter().all(|name| columns.contains_key(*name));
    if !complete(first) && !complete(second) {
        return Err(wrong_header(path, &header, first, second));
    }
    for record in reader.records() {
        let record = record.map_err(|error| unreadable(path, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        each(&Row { path, line, columns: &columns, record: &record })?;
    }
    Ok(())
}

/// The file cannot be opened, or is no CSV at some line.
fn unreadable(path: &Path, error: &csv::Error) -> CliError {
    if let csv::ErrorKind::Io(error) = error.kind() {
        return CliError::local(&format!("cannot read {}", path.display()), error);
    }
    let line = error.position().map_or(1, csv::Position::line);
    let error = CliError::usage(format!("{}:{line}: this is not CSV in UTF-8", path.display()));
    let is_packed =
        path.extension().is_some_and(|end| ["zst", "xz", "bz2", "zip"].iter().any(|known| end == *known));
    if is_packed {
        error.help("it seems to be compressed: unpack it first, or pack it by gzip")
    } else {
        error
    }
}

fn wrong_header(path: &Path, header: &csv::StringRecord, first: &[&str], second: &[&str]) -> CliError {
    let either = if second.is_empty() { String::new() } else { format!(", or {}", second.join(",")) };
    let have = if header.is_empty() {
        "the file is empty".to_owned()
    } else {
        format!("found {}", header.iter().collect::<Vec<_>>().join(","))
    };
    let error = CliError::usage(format!(
        "{}:1: expected the columns {}{either}; {have}",
        path.display(),
        first.join(",")
    ));
    match header.get(0) {
        Some(only) if header.len() == 1 && only.contains([';', '\t']) => {
            error.help("columns are separated by commas, not by semicolons or tabs")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn work(text: &[u8]) -> Result<Vec<WorkRow>, String> {
        let file = file(text);
        let name = file.path().display().to_string();
        read_workload(file.path()).map_err(|error| error.status()["message"].to_string().replace(&name, "F"))
    }

    #[test]
    fn columns_are_found_by_name_in_any_order_form_and_case() {
        let plain = work(b"submit_s,run_s,gpus\n5,10,2\n").unwrap();
        for text in [
            &b"gpus,vc,RUN_S,submit_s\n2,vc1,10,5\n"[..],
            b"\xef\xbb\xbfsubmit_s,run_s,gpus\r\n5,10,2\r\n",
            b"\"submit_s\",\" run_s\",\"gpus\"\n\"5\", 10 ,2.0",
            b"submit_s,run_s,gpus\n\n5,1e1,2,more,than,the,header\n\n",
        ] {
            assert_eq!(
                work(text)
                    .unwrap()
                    .iter()
                    .map(|row| WorkRow { name: plain[0].name.clone(), queue: String::new(), ..row.clone() })
                    .collect::<Vec<_>>(),
                plain
            );
        }
        let openb = work(b"gpu_milli,num_gpu,name,memory_mib,cpu_milli\n,1,a,1,1000\n,0,b,1,1\n").unwrap();
        assert_eq!((openb[0].gpu_milli, openb[1].gpu_milli, openb[0].run_s), (1_000, 0, None));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line_and_column() {
        for (text, says) in [
            (&b""[..], "F:1: expected the columns"),
            (b"submit_s,run_s\n0,1\n", "found submit_s,run_s"),
            (b"submit_s;run_s;gpus\n0;1;1\n", "F:1: expected"),
            (b"submit_s,run_s,gpus\n0,1,1\n0,1,-1\n", "F:3: column gpus"),
            (b"submit_s,run_s,gpus\n0,1\n", "F:2: column gpus: is missing"),
            (b"submit_s,run_s,gpus\nNaN,1,1\n", "F:2: column submit_s"),
            (b"submit_s,run_s,gpus\n0,inf,1\n", "F:2: column run_s"),
            (b"submit_s,run_s,gpus\n-1,1,1\n", "F:2: column submit_s"),
            (b"submit_s,run_s,gpus\n0,1e300,1\n", "F:2: column run_s"),
            (b"submit_s,run_s,gpus\n0,1,99999999999\n", "F:2: column gpus"),
            (b"submit_s,run_s,gpus,gpus\n0,1,1,1\n", "two columns are called gpus"),
            (b"submit_s,run_s,gpus\n0,1,1\n\xff,1,1\n", "F:3: this is not CSV"),
        ] {
            let said = work(text).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        let twice = file(b"sn,cpu_milli,memory_mib,gpu\nN-1,1,1,0\nn-1,1,1,0\n");
        assert!(
            read_nodes(twice.path()).unwrap_err().status()["message"].to_string().contains("first in line 2")
        );
    }
}
