//! Contexts: named clusters in one file, one of which is current.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::paths;

/// The file of contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// Contexts by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// How to reach one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Coordinators, HOST:PORT.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    /// Authorities of the coordinators' certificates (PEM file). TLS is used where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate of this client (PEM file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of this client (PEM file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// Name that the coordinators' certificates must carry, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
}

impl Contexts {
    /// Reads the user's file; no file is no contexts.
    pub(crate) fn load() -> Result<Contexts, CliError> {
        Contexts::load_from(&paths::context_file()?)
    }

    fn load_from(path: &Path) -> Result<Contexts, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(CliError::local(&format!("cannot read {}", path.display()), error)),
        };
        if text.trim().is_empty() {
            return Ok(Contexts::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| {
            let error = error.without_snippet();
            let place = error.location().map_or_else(
                || path.display().to_string(),
                |at| format!("{}:{}:{}", path.display(), at.line(), at.column()),
            );
            // The library tells the place with its message, in front or at the end; ours stands in front.
            let text = error.to_string();
            let end = text.find(" at line ").unwrap_or(text.len());
            CliError::usage(format!("{place}: {}", &text[..end]))
                .help("correct it, or remove it to begin anew")
        })
    }

    /// Writes the user's file, so that a reader sees the old or the new one and nothing between.
    pub(crate) fn save(&self) -> Result<PathBuf, CliError> {
        let path = paths::context_file()?;
        self.save_to(&path)?;
        Ok(path)
    }

    fn save_to(&self, path: &Path) -> Result<(), CliError> {
        let failed = |error: &dyn std::fmt::Display| {
            CliError::local(&format!("cannot write {}", path.display()), error)
        };
        let text = serde_saphyr::to_string(self).map_err(|error| failed(&error))?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let draft = folder.join(format!(".config.{}.yaml", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&draft)?;
            file.write_all(text.as_bytes())?;
            std::fs::rename(&draft, path)
        };
        write().map_err(|error| failed(&error))
    }

    /// The named context, or the current one for `None`.
    pub(crate) fn pick(&self, name: Option<&str>) -> Result<Option<(&str, &Context)>, CliError> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => {
                let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
                let error =
                    CliError::new(crate::exit::Exit::NotFound, "NOT_FOUND", format!("no context {name:?}"));
                Err(match known.is_empty() {
                    true => error.help("there are none yet: plimsoll context add NAME HOST:PORT"),
                    false => error.help(format!("there are: {}", known.join(", "))),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_unknown_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/config.yaml");
        assert_eq!(Contexts::load_from(&path).unwrap(), Contexts::default());
        let context = Context {
            addresses: vec!["127.0.0.1:7420".into()],
            ca: Some("ca.pem".into()),
            ..Context::default()
        };
        let contexts =
            Contexts { current: Some("dev".into()), contexts: BTreeMap::from([("dev".into(), context)]) };
        contexts.save_to(&path).unwrap();
        assert_eq!(Contexts::load_from(&path).unwrap(), contexts);
        assert_eq!(contexts.pick(None).unwrap().unwrap().0, "dev");
        assert!(contexts.pick(Some("lab")).is_err());
        std::fs::write(&path, "currant: dev\n").unwrap();
        let error = Contexts::load_from(&path).unwrap_err().status();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("config.yaml:1:1: ") && message.contains("currant"), "{message}");
        assert!(!message.contains("line 1") && !message.contains('\n'), "{message}");
    }
}
