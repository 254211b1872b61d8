//! Colour and signs: never the only carrier of a meaning, and plain where the terminal is.

/// Whether colours and signs beyond ASCII are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    /// ANSI colours.
    pub(crate) color: bool,
    /// Signs beyond ASCII.
    pub(crate) unicode: bool,
}

impl Paint {
    /// Neither.
    #[cfg(test)]
    pub(crate) const PLAIN: Paint = Paint { color: false, unicode: false };

    /// True where the locale can show signs beyond ASCII.
    pub(crate) fn unicode_locale() -> bool {
        let first = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        first.is_some_and(|locale| locale.to_lowercase().replace('-', "").contains("utf8"))
    }

    /// Something went well.
    pub(crate) fn done(self) -> String {
        self.wrap("32", if self.unicode { "✔" } else { "ok" })
    }

    /// Something waits.
    pub(crate) fn waiting(self) -> String {
        self.wrap("33", if self.unicode { "⠋" } else { "..." })
    }

    /// A sign before one of many.
    pub(crate) fn bullet(self) -> &'static str {
        if self.unicode { "·" } else { "-" }
    }

    /// A sign between parts of a line.
    pub(crate) fn dot(self) -> &'static str {
        if self.unicode { "·" } else { "-" }
    }

    /// Bad news.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// Worth a look.
    pub(crate) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Less important.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
