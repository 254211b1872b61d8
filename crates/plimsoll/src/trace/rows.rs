//! Rows of fleets and workloads. Which columns a file has is read from its header, never from its name:
//! `sn,cpu_milli,memory_mib,gpu,model` (openb nodes), `name,cpu_milli,memory_mib,num_gpu,gpu_milli,...` (openb tasks),
//! `submit_s,run_s,gpus,vc` (philly jobs).

use std::collections::BTreeMap;
use std::path::Path;

use plimsoll_agent::SimulatedNode;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::inventory::Inventory;
use plimsoll_ledger::{Device, Gang, GpuAsk, GpuShare, Registration, Request, Requirements};
use plimsoll_types::Resources;

use crate::error::CliError;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One node of a recorded fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) name: String,
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
    pub(crate) submit_s: f64,
    /// How long it runs once started; `None` for ever.
    pub(crate) run_s: Option<f64>,
}

impl NodeRow {
    /// The node as an agent would report it.
    pub(crate) fn registration(&self) -> Registration {
        let memory_bytes = device_memory_bytes(&self.model);
        let device = |index: u32| Device {
            uuid: format!("{}/gpu{index}", self.name),
            model: self.model.clone(),
            memory_bytes,
            failed: false,
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
    read(path, &["sn", "cpu_milli", "memory_mib", "gpu", "model"], &[], |row| {
        nodes.push(NodeRow {
            name: row.text("sn")?.to_ascii_lowercase(),
            cpu_millis: row.number("cpu_milli")?,
            memory_bytes: mebibytes(row.number("memory_mib")?),
            gpus: row.number("gpu")?,
            model: row.text("model").unwrap_or_default().to_ascii_lowercase(),
        });
        Ok(())
    })?;
    Ok(nodes)
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
    let created: f64 = row.number_or("creation_time", 0.0)?;
    let started: f64 = row.number_or("scheduled_time", created)?;
    let deleted: Option<f64> = row.optional("deletion_time")?;
    let spec = row.text("gpu_spec").unwrap_or_default();
    Ok(WorkRow {
        name: row.text("name")?.to_owned(),
        cpu_millis: row.number("cpu_milli")?,
        memory_bytes: mebibytes(row.number("memory_mib")?),
        gpus: row.number("num_gpu")?,
        gpu_milli: row.number("gpu_milli")?,
        models: spec.split('|').filter(|model| !model.is_empty()).map(str::to_ascii_lowercase).collect(),
        // Latency-sensitive first, best-effort last.
        class: match row.text("qos").unwrap_or_default() {
            "LS" => "high",
            "Burstable" => "low",
            "BE" => "batch",
            _ => "standard",
        },
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
        submit_s: row.number("submit_s")?,
        run_s: Some(row.number("run_s")?),
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

struct Row<'a> {
    path: &'a Path,
    line: u64,
    columns: &'a BTreeMap<String, usize>,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    fn text(&self, column: &str) -> Result<&str, CliError> {
        let field = self.columns.get(column).and_then(|index| self.record.get(*index)).map(str::trim);
        field.ok_or_else(|| self.wrong(column, "is missing"))
    }

    fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T, CliError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.wrong(column, &format!("{text:?} is not a number that fits")))
    }

    fn optional<T: std::str::FromStr>(&self, column: &str) -> Result<Option<T>, CliError> {
        match self.text(column) {
            Err(_) | Ok("") => Ok(None),
            Ok(_) => self.number(column).map(Some),
        }
    }

    fn number_or<T: std::str::FromStr>(&self, column: &str, default: T) -> Result<T, CliError> {
        Ok(self.optional(column)?.unwrap_or(default))
    }

    fn wrong(&self, column: &str, what: &str) -> CliError {
        CliError::usage(format!("{}:{}: column {column}: {what}", self.path.display(), self.line))
    }
}

fn read(
    path: &Path,
    first: &[&str],
    second: &[&str],
    mut each: impl FnMut(&Row<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let doing = format!("cannot read {}", path.display());
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(path)
        .map_err(|error| CliError::local(&doing, error))?;
    let header = reader.headers().map_err(|error| CliError::local(&doing, error))?.clone();
    let columns: BTreeMap<String, usize> =
        header.iter().enumerate().map(|(index, name)| (name.trim().to_owned(), index)).collect();
    let complete =
        |wanted: &[&str]| !wanted.is_empty() && wanted.iter().all(|name| columns.contains_key(*name));
    if !complete(first) && !complete(second) {
        let either = if second.is_empty() { String::new() } else { format!(", or {}", second.join(",")) };
        let have = header.iter().collect::<Vec<_>>().join(",");
        return Err(CliError::usage(format!(
            "{}:1: expected the columns {}{either}; found {have}",
            path.display(),
            first.join(",")
        )));
    }
    for record in reader.records() {
        let record = record.map_err(|error| CliError::local(&doing, error))?;
        let line = record.position().map_or(0, csv::Position::line);
        each(&Row { path, line, columns: &columns, record: &record })?;
    }
    Ok(())
}
