//! Documents of this repository, and the switch that writes them anew.

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the checkout").to_owned()
}

/// The text of a document, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Documents whose code blocks are looked at: the three of the root, and all of `docs/`.
pub(crate) fn all() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).into();
    let folder = std::fs::read_dir(root().join("docs")).expect("docs/ is there");
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    pages.sort();
    pages
}

/// Compares a document with what it should be, or writes it where `PLIMSOLL_UPDATE_DOCS` is set.
pub(crate) fn expect(path: &str, wanted: &str) {
    if std::env::var_os("PLIMSOLL_UPDATE_DOCS").is_some() {
        std::fs::write(root().join(path), wanted).expect("the document can be written");
        return;
    }
    let text = read(path);
    let differing = text.lines().zip(wanted.lines()).enumerate().find(|(_, (is, should))| is != should);
    if let Some((index, (is, should))) = differing {
        let line = index + 1;
        panic!(
            "{path}:{line} says\n  {is}\nbut should say\n  {should}\nPLIMSOLL_UPDATE_DOCS=1 writes it anew"
        );
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "{path}: PLIMSOLL_UPDATE_DOCS=1 writes it anew");
}
