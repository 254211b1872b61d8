//! Relative links of the documents lead to files.

use crate::page;

#[test]
fn relative_links_lead_somewhere() {
    for path in page::all() {
        let folder = page::root().join(&path);
        let folder = folder.parent().expect("a document lies in a folder");
        let text = page::read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains([' ', '[', '{']) {
                continue;
            }
            assert!(folder.join(target).exists(), "{path}: {link} leads nowhere");
        }
    }
}
