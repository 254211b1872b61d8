//! `plimsoll context`: named clusters.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Globals;
use crate::context::{self, Contexts};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Column, Shown};

/// Named clusters.
#[derive(Args, Debug)]
pub(crate) struct Context {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show all contexts
    #[command(alias = "ls")]
    List,
    /// Use a context from now on
    Use {
        /// Its name
        name: String,
    },
    /// Add or replace a context; --ca, --cert and --key are kept with it
    Add {
        /// Its name
        name: String,
        /// Coordinators, HOST:PORT
        #[arg(required = true, value_name = "ADDR")]
        addresses: Vec<String>,
        /// Use it from now on
        #[arg(long = "use")]
        select: bool,
    },
    /// Remove a context
    #[command(alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}

struct Row {
    name: String,
    current: bool,
    context: context::Context,
}

impl Shown for Row {
    const COLUMNS: &'static [Column<Row>] = &[
        Column::new("CURRENT", |r, _| if r.current { "*" } else { " " }.to_owned()),
        Column::new("CONTEXT", |r, _| r.name.clone()),
        Column::new("ADDRESSES", |r, _| r.context.addresses.join(",")),
        Column::new("TLS", |r, _| if r.context.ca.is_some() { "yes" } else { "no" }.to_owned()),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        let mut value = serde_json::to_value(&self.context).unwrap_or(Value::Null);
        value["name"] = json!(self.name);
        value["current"] = json!(self.current);
        value
    }
}

impl Context {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut contexts = Contexts::load()?;
        let out = globals.out();
        match self.verb {
            Verb::List => {
                let row = |(name, context): (&String, &context::Context)| Row {
                    name: name.clone(),
                    current: contexts.current.as_ref() == Some(name),
                    context: context.clone(),
                };
                let rows: Vec<Row> = contexts.contexts.iter().map(row).collect();
                out.list(&rows, None)?;
            }
            Verb::Use { name } => {
                contexts.pick(Some(&name))?;
                contexts.current = Some(name.clone());
                contexts.save()?;
                out.done(&format!("context {name:?} is used from now on"));
            }
            Verb::Add { name, addresses, select } => {
                let absolute = |path: &Option<PathBuf>| {
                    path.as_ref()
                        .map(std::path::absolute)
                        .transpose()
                        .map_err(|error| CliError::local("no such path", error))
                };
                let context = context::Context {
                    addresses,
                    ca: absolute(&globals.ca)?,
                    cert: absolute(&globals.cert)?,
                    key: absolute(&globals.key)?,
                    server_name: globals.server_name.clone(),
                };
                contexts.contexts.insert(name.clone(), context);
                let select = select || contexts.current.is_none();
                if select {
                    contexts.current = Some(name.clone());
                }
                contexts.save()?;
                out.done(&format!(
                    "added context {name:?}{}",
                    if select { ", which is used from now on" } else { "" }
                ));
            }
            Verb::Remove { name } => {
                contexts.pick(Some(&name))?;
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
                contexts.save()?;
                out.done(&format!("removed context {name:?}"));
            }
        }
        Ok(Exit::Done)
    }
}
