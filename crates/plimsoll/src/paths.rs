//! Where files are: the XDG folders, or all below `PLIMSOLL_HOME`.

use std::path::PathBuf;

use etcetera::{BaseStrategy as _, base_strategy::Xdg};

use crate::error::CliError;

/// Variable that moves all folders.
pub(crate) const HOME_VARIABLE: &str = "PLIMSOLL_HOME";

/// Folder of the configuration.
pub(crate) fn config_dir() -> Result<PathBuf, CliError> {
    match home() {
        Some(home) => Ok(home.join("config")),
        None => Ok(xdg()?.config_dir().join("plimsoll")),
    }
}

/// The file of contexts.
pub(crate) fn context_file() -> Result<PathBuf, CliError> {
    Ok(config_dir()?.join("config.yaml"))
}

/// Folder of sockets.
pub(crate) fn runtime_dir() -> PathBuf {
    if let Some(home) = home() {
        return home.join("run");
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    match (nix::unistd::geteuid().is_root(), runtime) {
        (false, Some(dir)) => dir.join("plimsoll"),
        (true, _) => PathBuf::from("/run/plimsoll"),
        (false, None) => std::env::temp_dir().join(format!("plimsoll-{}", nix::unistd::geteuid())),
    }
}

fn home() -> Option<PathBuf> {
    std::env::var_os(HOME_VARIABLE).filter(|home| !home.is_empty()).map(PathBuf::from)
}

fn xdg() -> Result<Xdg, CliError> {
    Xdg::new().map_err(|error| {
        CliError::local("cannot find the home folder", error).help(format!("set HOME or {HOME_VARIABLE}"))
    })
}
