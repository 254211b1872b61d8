//! What `apply`, `diff`, `delete` and `validate` share: reading files, what the cluster has, one row for each object.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use plimsoll_client::v1::policy_object::Object;
use plimsoll_client::v1::{
    ListClassesRequest, ListNodeLimitsRequest, ListPoolsRequest, ListQueuesRequest, ListQuotasRequest,
    ListScalingPoliciesRequest, ListSchedulesRequest, ListServicesRequest, ListValidatorsRequest,
    PolicyObject as Message,
};
use plimsoll_client::{Client, v1};
use plimsoll_ledger::{PolicyName, PolicyObject};
use plimsoll_policy::{
    Change, Contents, Parsed, Problem, Source, changes, kind_word, parse_all, parse_with, to_document,
};
use plimsoll_proto::convert::policy_object_from_v1;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Column, Format, Out, Shown};

/// Largest file that is read, in bytes; what a call may carry is less.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Ends of names of files that are read from folders. JSON is YAML.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Which files.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// File, folder (its .yaml, .yml and .json files, by name) or - for stdin; may be given several times
    #[arg(long = "filename", visible_alias = "file", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folders inside of folders too
    #[arg(long, short = 'R')]
    recursive: bool,
}

/// How far a change goes when it is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Compare with what the cluster has, and send nothing
    Client,
    /// Have the cluster decide, and change nothing
    Server,
}

/// What became of an object, or would.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    kind: &'static str,
    name: String,
    result: &'static str,
    is_dry: bool,
    changes: Vec<Change>,
}

impl FileArgs {
    /// These files.
    pub(crate) fn of(files: Vec<PathBuf>) -> FileArgs {
        FileArgs { files, recursive: false }
    }

    /// True where none was named.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The texts of all files.
    ///
    /// # Errors
    /// Where none is named, or one cannot be read.
    pub(crate) fn sources(&self) -> Result<Vec<Source>, CliError> {
        if self.files.is_empty() {
            return Err(CliError::usage("which files?").help("add -f FILE, -f FOLDER or -f - for stdin"));
        }
        let mut sources = Vec::new();
        for path in &self.files {
            if path == Path::new("-") {
                sources.push(read("stdin".to_owned(), std::io::stdin().lock())?);
                continue;
            }
            let found = find(path, self.recursive)
                .map_err(|error| CliError::local(&format!("cannot read {}", path.display()), error))?;
            if found.is_empty() {
                return Err(CliError::usage(format!("no .yaml, .yml or .json files in {}", path.display()))
                    .help("add -R to look into the folders in it"));
            }
            for path in found {
                let name = path.display().to_string();
                let file = std::fs::File::open(&path)
                    .map_err(|error| CliError::local(&format!("cannot read {name}"), error))?;
                sources.push(read(name, file)?);
            }
        }
        Ok(sources)
    }

    /// The objects of all files.
    ///
    /// # Errors
    /// Where a file cannot be read, and where anything in any of them is wrong: then with everything that is.
    pub(crate) fn load(&self, asked: &str) -> Result<Vec<Parsed>, CliError> {
        let sources = self.sources()?;
        let objects = parse_with(&sources, &|name| std::env::var(name).ok())
            .map_err(|problems| wrong(&problems, asked))?;
        if objects.is_empty() {
            return Err(CliError::usage("there are no objects in the files").asked(asked));
        }
        Ok(objects)
    }

    /// The objects and the requests of all files.
    ///
    /// # Errors
    /// As for [`FileArgs::load`].
    pub(crate) fn load_all(&self, asked: &str) -> Result<Contents, CliError> {
        let contents = parse_all(&self.sources()?, &|name| std::env::var(name).ok())
            .map_err(|problems| wrong(&problems, asked))?;
        if contents.objects.is_empty() && contents.requests.is_empty() {
            return Err(CliError::usage("there are no objects in the files").asked(asked));
        }
        Ok(contents)
    }
}

/// Everything that is wrong with the files, with its places.
fn wrong(problems: &[Problem], asked: &str) -> CliError {
    let count = problems.len();
    let things =
        if count == 1 { "one thing is wrong".to_owned() } else { format!("{count} things are wrong") };
    CliError::new(Exit::Usage, "INVALID_ARGUMENT", things).asked(asked).at_places(problems)
}

impl Row {
    /// What applying `new` does where the cluster has `old`.
    pub(crate) fn of_change(old: Option<&PolicyObject>, new: &PolicyObject, is_dry: bool) -> Row {
        let changes = changes(old, new);
        let result = match old {
            None => "created",
            Some(_) if changes.is_empty() => "unchanged",
            Some(_) => "configured",
        };
        let name = new.name();
        Row { kind: kind_word(&name), name: name.name().to_owned(), result, is_dry, changes }
    }

    /// A row with nothing but a word.
    pub(crate) fn plain(name: PolicyName, result: &'static str, is_dry: bool) -> Row {
        let (kind, name) = (kind_word(&name), name.name().to_owned());
        Row { kind, name, result, is_dry, changes: Vec::new() }
    }

    /// A request of a file.
    pub(crate) fn of_request(name: String, result: &'static str, is_dry: bool) -> Row {
        Row { kind: "Reservation", name, result, is_dry, changes: Vec::new() }
    }

    /// The row as a plan has it, field by field.
    pub(crate) fn planned(&self) -> String {
        let sign = match self.result {
            "created" => '+',
            "unchanged" => '=',
            _ => '~',
        };
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        let changed = self.changes.iter().filter(|_| self.result != "created");
        let changed: Vec<String> = changed
            .map(|change| format!("{} {} → {}", change.field, value(&change.from), value(&change.to)))
            .collect();
        let changed = if changed.is_empty() { String::new() } else { format!("   {}", changed.join(" · ")) };
        format!("  {sign} {}{changed}\n", self.id())
    }

    /// True where the cluster is, or would be, another one afterwards.
    pub(crate) fn is_change(&self) -> bool {
        self.result != "unchanged"
    }

    /// The word.
    pub(crate) fn result(&self) -> &'static str {
        self.result
    }

    fn suffix(&self) -> &'static str {
        if self.is_dry { " (dry run)" } else { "" }
    }
}

impl Shown for Row {
    const COLUMNS: &'static [Column<Row>] = &[
        Column::new("OBJECT", |row, _| row.id()),
        Column::new("RESULT", |row, _| format!("{}{}", row.result, row.suffix())),
        Column::new("CHANGES", |row, _| {
            row.changes.iter().map(|change| change.field.clone()).collect::<Vec<_>>().join(",")
        }),
    ];

    fn id(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    fn json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|change| json!({ "field": change.field, "from": change.from, "to": change.to }))
            .collect();
        json!({
            "kind": self.kind, "name": self.name, "result": self.result, "dryRun": self.is_dry,
            "changes": changes,
        })
    }
}

/// Writes the rows: a line for each object, `pool/gpu created`, or what -o says.
pub(crate) fn show(out: &Out, rows: &[Row]) -> Result<(), CliError> {
    if out.format != Format::Table {
        return out.list(rows, None);
    }
    out.emit(
        &rows.iter().map(|row| format!("{} {}{}\n", row.id(), row.result, row.suffix())).collect::<String>(),
    )
}

/// How many there are of each result: `2 created, 1 unchanged`.
pub(crate) fn tally(rows: &[Row]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.result).or_default() += 1;
    }
    counts.iter().map(|(result, count)| format!("{count} {result}")).collect::<Vec<_>>().join(", ")
}

/// What the cluster has, of the kinds of `names`.
pub(crate) async fn live(
    client: &Client,
    consistency: i32,
    names: &[PolicyName],
) -> Result<BTreeMap<PolicyName, PolicyObject>, CliError> {
    let mut messages: Vec<Object> = Vec::new();
    if names.iter().any(|name| matches!(name, PolicyName::Pool(_))) {
        let pools = client.all_pools(ListPoolsRequest { consistency, ..ListPoolsRequest::default() }).await?;
        messages.extend(pools.items.into_iter().map(|(pool, _)| Object::Pool(pool)));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Class(_))) {
        let request = ListClassesRequest { consistency, ..ListClassesRequest::default() };
        messages.extend(client.all_classes(request).await?.items.into_iter().map(Object::Class));
    }
    if names.iter().any(|name| matches!(name, PolicyName::NodeLimits(_))) {
        let request = ListNodeLimitsRequest { consistency, ..ListNodeLimitsRequest::default() };
        messages.extend(client.all_node_limits(request).await?.items.into_iter().map(Object::NodeLimits));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Queue(_))) {
        let request = ListQueuesRequest { consistency, ..ListQueuesRequest::default() };
        let queues = client.all_queues(request).await?;
        messages.extend(queues.items.into_iter().map(|(queue, _)| Object::Queue(queue)));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Quota(_))) {
        let request = ListQuotasRequest { consistency, ..ListQuotasRequest::default() };
        let quotas = client.all_quotas(request).await?;
        messages.extend(quotas.items.into_iter().map(|(quota, _)| Object::Quota(quota)));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Validator(_))) {
        let request = ListValidatorsRequest { consistency, ..ListValidatorsRequest::default() };
        messages.extend(client.all_validators(request).await?.items.into_iter().map(Object::Validator));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Schedule(_))) {
        let request = ListSchedulesRequest { consistency, ..ListSchedulesRequest::default() };
        let schedules = client.all_schedules(request).await?;
        messages.extend(schedules.items.into_iter().map(|(schedule, _)| Object::Schedule(schedule)));
    }
    if names.iter().any(|name| matches!(name, PolicyName::Service(_))) {
        let request = ListServicesRequest { consistency, ..ListServicesRequest::default() };
        let services = client.all_services(request).await?;
        messages.extend(services.items.into_iter().map(|(service, _)| Object::Service(service)));
    }
    if names.iter().any(|name| matches!(name, PolicyName::ScalingPolicy(_))) {
        let request = ListScalingPoliciesRequest { consistency, ..ListScalingPoliciesRequest::default() };
        let policies = client.all_scaling_policies(request).await?;
        messages.extend(policies.items.into_iter().map(|(policy, _)| Object::ScalingPolicy(policy)));
    }
    let objects =
        messages.into_iter().map(|object| read_message(object).map(|object| (object.name(), object)));
    objects.collect()
}

/// Objects of the API as files have them: what `get -o yaml` shows, to be changed and applied again.
pub(crate) fn documents(objects: impl IntoIterator<Item = Object>) -> Result<Value, CliError> {
    objects.into_iter().map(|object| Ok(to_document(&read_message(object)?))).collect()
}

fn read_message(object: Object) -> Result<PolicyObject, CliError> {
    policy_object_from_v1(&Message { object: Some(object) }).map_err(|violations| {
        let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
        CliError::new(
            Exit::Refused,
            "LOCAL",
            format!("the cluster's answer cannot be read: {}", text.join("; ")),
        )
        .help("is the cluster newer than this command? plimsoll version")
    })
}

/// Kind and name as the API has them.
pub(crate) fn names_to_v1(names: &[PolicyName]) -> Vec<v1::PolicyName> {
    names.iter().map(plimsoll_proto::convert::policy_name_to_v1).collect()
}

/// A file itself, or what is in a folder, by name.
fn find(path: &Path, recursive: bool) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let kind = entry.symlink_metadata()?;
        if kind.is_dir() {
            if recursive {
                found.extend(find(&entry, recursive)?);
            }
        } else if entry.extension().and_then(|end| end.to_str()).is_some_and(|end| EXTENSIONS.contains(&end))
        {
            found.push(entry);
        }
    }
    Ok(found)
}

fn read(name: String, from: impl std::io::Read) -> Result<Source, CliError> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::local(&format!("cannot read {name}"), error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CliError::usage(format!("{name} has more than {MAX_FILE_BYTES} bytes"))
            .help("apply it in parts: at most 1024 objects go in one step"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        CliError::usage(format!("{name} is not UTF-8 text: byte {at} is none"))
    })?;
    Ok(Source { name, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_files_by_name_and_inner_folders_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt", "inner/d.yaml"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |recursive| {
            let found = find(folder.path(), recursive).unwrap().into_iter();
            let name = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
            found.map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(names(true), ["a.yml", "b.yaml", "c.json", "inner/d.yaml"]);
        assert!(find(&folder.path().join("none"), false).is_err());
    }

    #[test]
    fn text_that_is_none_or_too_long_is_refused() {
        let refused = |bytes: &[u8]| read("f".into(), bytes).unwrap_err().exit();
        assert_eq!(refused(b"a: \xff"), Exit::Usage);
        assert_eq!(refused(&vec![b'a'; (4 << 20) + 1]), Exit::Usage);
        assert!(read("f".into(), &b"a: 1"[..]).is_ok());
    }
}
