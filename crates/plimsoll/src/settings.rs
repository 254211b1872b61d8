//! Where each setting comes from: flag, then variable, then context, then default.

use std::path::PathBuf;
use std::time::Duration;

use plimsoll_client::{Client, ClientOptions, Tls};

use crate::args::Globals;
use crate::context::Contexts;
use crate::error::CliError;

/// Address where none is given anywhere.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7420";

/// How long all coordinators may refuse connections before a command ends: longer than a restart of one takes.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(3);

/// Where a value was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    Context(String),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Context(name) => write!(f, "context {name}"),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// A value with its origin.
pub(crate) type Setting<T> = (T, Origin);

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Name of the context in use, if any.
    pub(crate) context: Setting<Option<String>>,
    /// Coordinators.
    pub(crate) addresses: Setting<Vec<String>>,
    /// Authorities.
    pub(crate) ca: Setting<Option<PathBuf>>,
    /// Certificate.
    pub(crate) cert: Setting<Option<PathBuf>>,
    /// Private key.
    pub(crate) key: Setting<Option<PathBuf>>,
    /// Name in the coordinators' certificates.
    pub(crate) server_name: Setting<Option<String>>,
}

impl Settings {
    /// Puts flags, variables and the context file together.
    pub(crate) fn resolve(globals: &Globals) -> Result<Settings, CliError> {
        Settings::from(globals, &Contexts::load()?, &|name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    fn from(
        globals: &Globals,
        contexts: &Contexts,
        variable: &dyn Fn(&'static str) -> Option<String>,
    ) -> Result<Settings, CliError> {
        let context = match (&globals.context, variable("PLIMSOLL_CONTEXT")) {
            (Some(name), _) => (Some(name.clone()), Origin::Flag("--context")),
            (None, Some(name)) => (Some(name), Origin::Variable("PLIMSOLL_CONTEXT")),
            (None, None) => (contexts.current.clone(), Origin::Default),
        };
        let addresses_given = !globals.addr.is_empty() || variable("PLIMSOLL_ADDR").is_some();
        // An address given by hand is not mixed with another cluster's certificates, unless its context is named too.
        let used = if addresses_given && context.1 == Origin::Default {
            None
        } else {
            contexts.pick(context.0.as_deref())?
        };
        let text = |flag: &Option<String>, flag_name, variable_name, from_context: Option<String>| {
            choose(flag.clone(), flag_name, variable(variable_name), variable_name, from_context, used)
        };
        let path = |flag: &Option<PathBuf>, flag_name, variable_name, from_context: Option<PathBuf>| {
            let variable = variable(variable_name).map(PathBuf::from);
            choose(flag.clone(), flag_name, variable, variable_name, from_context, used)
        };
        let here = used.map(|(_, context)| context.clone()).unwrap_or_default();
        let flag = Some(globals.addr.clone()).filter(|addresses| !addresses.is_empty());
        let from_variable =
            variable("PLIMSOLL_ADDR").map(|text| text.split(',').map(str::to_owned).collect());
        let from_context = Some(here.addresses).filter(|addresses| !addresses.is_empty());
        let addresses = choose(flag, "--addr", from_variable, "PLIMSOLL_ADDR", from_context, used);
        Ok(Settings {
            addresses: (addresses.0.unwrap_or_else(|| vec![DEFAULT_ADDRESS.to_owned()]), addresses.1),
            ca: path(&globals.ca, "--ca", "PLIMSOLL_CA", here.ca),
            cert: path(&globals.cert, "--cert", "PLIMSOLL_CERT", here.cert),
            key: path(&globals.key, "--key", "PLIMSOLL_KEY", here.key),
            server_name: text(
                &globals.server_name,
                "--server-name",
                "PLIMSOLL_SERVER_NAME",
                here.server_name,
            ),
            context: (used.map(|(name, _)| name.to_owned()), context.1),
        })
    }

    /// Certificates, read; `None` where TLS is not used.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, CliError> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| CliError::local(&format!("cannot read {}", path.display()), error))
        };
        let (ca, cert, key) = (&self.ca.0, &self.cert.0, &self.key.0);
        if ca.is_none() && cert.is_none() && key.is_none() {
            return Ok(None);
        }
        let identity_pem = match (cert, key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => return Err(CliError::usage("--cert and --key belong together")),
        };
        let ca_pem = ca.as_ref().map(read).transpose()?;
        Ok(Some(Tls { ca_pem, identity_pem, server_name: self.server_name.0.clone() }))
    }

    /// A client of that cluster.
    pub(crate) fn client(&self, timeout: Duration) -> Result<Client, CliError> {
        let mut options = ClientOptions::with_tls(self.tls()?).timeout(timeout);
        // Somebody sits before it: where nothing listens at all, they are told soon.
        options.unreachable_after = Some(UNREACHABLE_AFTER);
        Ok(Client::new(self.addresses.0.clone(), options)?)
    }
}

fn choose<T>(
    flag: Option<T>,
    flag_name: &'static str,
    variable: Option<T>,
    variable_name: &'static str,
    from_context: Option<T>,
    context: Option<(&str, &crate::context::Context)>,
) -> Setting<Option<T>> {
    match (flag, variable, from_context, context) {
        (Some(value), ..) => (Some(value), Origin::Flag(flag_name)),
        (None, Some(value), ..) => (Some(value), Origin::Variable(variable_name)),
        (None, None, Some(value), Some((name, _))) => (Some(value), Origin::Context(name.to_owned())),
        _ => (None, Origin::Default),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;
    use crate::context::Context;

    fn resolve(arguments: &[&str], variables: &'static [(&'static str, &'static str)]) -> Settings {
        let command = ["plimsoll"].iter().chain(arguments).chain(&["config", "view"]);
        let globals = Cli::try_parse_from(command).unwrap().globals;
        let dev =
            Context { addresses: vec!["dev:1".into()], ca: Some("dev.pem".into()), ..Context::default() };
        let lab = Context { addresses: vec!["lab:1".into()], ..Context::default() };
        let contexts = Contexts {
            current: Some("dev".into()),
            contexts: [("dev".to_owned(), dev), ("lab".to_owned(), lab)].into(),
        };
        let variable = |name: &'static str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::from(&globals, &contexts, &variable).unwrap()
    }

    #[test]
    fn a_flag_goes_before_a_variable_before_a_context_before_the_default() {
        let settings = resolve(&["--addr", "flag:1"], &[("PLIMSOLL_ADDR", "var:1")]);
        assert_eq!(settings.addresses, (vec!["flag:1".into()], Origin::Flag("--addr")));
        let settings = resolve(&[], &[("PLIMSOLL_ADDR", "var:1,var:2")]);
        assert_eq!(
            settings.addresses,
            (vec!["var:1".into(), "var:2".into()], Origin::Variable("PLIMSOLL_ADDR"))
        );
        assert_eq!(settings.ca.0, None, "another cluster's certificates are not used");
        let settings = resolve(&[], &[]);
        assert_eq!(settings.addresses, (vec!["dev:1".into()], Origin::Context("dev".into())));
        assert_eq!(settings.ca.0, Some("dev.pem".into()));
        let settings = resolve(&["--context", "lab"], &[]);
        assert_eq!(settings.addresses.0, ["lab:1"]);
    }
}
