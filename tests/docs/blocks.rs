//! Fenced code blocks of Markdown.

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Language: the first word after the fence.
    pub(crate) language: String,
    /// The rest of the line after the fence.
    pub(crate) marker: String,
    /// What is in it.
    pub(crate) text: String,
    /// Line of the fence, from 1.
    pub(crate) line: usize,
}

impl Block {
    /// Why it is not run, where it says so: `no-run: REASON`. A marker without a reason is a fault of the document.
    pub(crate) fn no_run(&self) -> Option<&str> {
        let reason = self.marker.strip_prefix("no-run")?;
        let reason = reason.strip_prefix(':').unwrap_or_default().trim();
        assert!(reason.len() > 8, "line {}: `no-run` needs a reason: `sh no-run: why`", self.line);
        Some(reason)
    }

    /// The program that it needs beyond a shell, where it says so: `needs: PROGRAM`.
    pub(crate) fn needs(&self) -> Option<&str> {
        Some(self.marker.strip_prefix("needs:")?.trim())
    }
}

/// All blocks of a document, in order.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    for (index, line) in text.lines().enumerate() {
        let ticks = line.trim_start().bytes().take_while(|byte| *byte == b'`').count();
        match &mut open {
            Some((block, fence)) if ticks >= *fence && line.trim().len() == ticks => {
                blocks.push(block.clone());
                open = None;
            }
            Some((block, _)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None if ticks >= 3 => {
                let info = line.trim().trim_start_matches('`').trim();
                let (language, marker) = info.split_once(' ').unwrap_or((info, ""));
                let (language, marker) = (language.to_owned(), marker.trim().to_owned());
                open = Some((Block { language, marker, text: String::new(), line: index + 1 }, ticks));
            }
            None => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed: {open:?}");
    blocks
}

#[test]
fn blocks_are_found_with_language_marker_and_line() {
    let text = "a\n```sh no-run: needs a GPU\nls\n```\n\n````text\n```\n````\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].language.as_str(), found[0].line), ("sh", 2));
    assert_eq!(found[0].no_run(), Some("needs a GPU"));
    assert_eq!(found[1].text, "```\n");
}
