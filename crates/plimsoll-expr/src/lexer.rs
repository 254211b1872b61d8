//! The pass before CEL: bounds on length, tokens and nesting, and quantities taken out of the text.
//!
//! The CEL library recurses over its input, both over brackets and over flat chains, and an overflow of the stack ends the process. So nothing
//! reaches it that could: what passes here was measured on the stack that it is parsed on. Quantities (`4Gi`) are no CEL: each is replaced by a
//! name of the same length, so that every place in the text stays what it was.

use std::collections::BTreeMap;

use crate::literal::Literal;
use crate::problem::Problem;

/// Longest expression, in bytes.
pub const MAX_BYTES: usize = 1024;
/// Most tokens of an expression.
pub const MAX_TOKENS: usize = 256;
/// Deepest nesting of brackets, and most `?` of an expression.
pub const MAX_NESTING: usize = 12;

/// The text for CEL and the quantities that were in it, by the place where each begins.
#[derive(Debug)]
pub(crate) struct Lexed {
    pub(crate) text: String,
    pub(crate) literals: BTreeMap<usize, Literal>,
}

/// Checks the bounds and takes the quantities out.
pub(crate) fn lex(text: &str) -> Result<Lexed, Problem> {
    let chars: Vec<char> = text.chars().take(MAX_BYTES + 1).collect();
    if text.len() > MAX_BYTES {
        let message = format!("the expression has {} bytes, at most {MAX_BYTES} are taken", text.len());
        return Err(Problem::at(&chars, 0, 1, message, "split it into several rules"));
    }
    let mut lexer =
        Lexer { chars: &chars, at: 0, tokens: 0, nesting: 0, choices: 0, literals: BTreeMap::new() };
    let mut out = chars.clone();
    while lexer.at < chars.len() {
        let start = lexer.at;
        lexer.token()?;
        if lexer.literals.contains_key(&start) {
            out[start] = '_';
            out[start + 1..lexer.at].fill('q');
        }
    }
    if lexer.tokens == 0 {
        return Err(Problem::at(&chars, 0, 1, "the expression is empty", ""));
    }
    Ok(Lexed { text: out.into_iter().collect(), literals: lexer.literals })
}

/// A name that stands for a quantity.
pub(crate) fn is_placeholder(name: &str) -> bool {
    name.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte == b'q'))
}

struct Lexer<'t> {
    chars: &'t [char],
    at: usize,
    tokens: usize,
    nesting: usize,
    choices: usize,
    literals: BTreeMap<usize, Literal>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn problem(&self, start: usize, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem::at(self.chars, start, self.at.max(start + 1), message, help)
    }

    /// Goes past one token, or past white space.
    fn token(&mut self) -> Result<(), Problem> {
        let start = self.at;
        let c = self.chars[start];
        if c.is_whitespace() {
            self.at += 1;
            return Ok(());
        }
        self.tokens += 1;
        if self.tokens > MAX_TOKENS {
            let message = format!("the expression has more than {MAX_TOKENS} words and signs");
            return Err(self.problem(start, message, "split it into several rules"));
        }
        match c {
            '"' | '\'' => self.string(),
            '0'..='9' => self.number(),
            _ if c.is_ascii_alphabetic() || c == '_' => self.word(),
            '(' | '[' | '{' => {
                self.nesting += 1;
                self.at += 1;
                if self.nesting > MAX_NESTING {
                    let message = format!("brackets are nested deeper than {MAX_NESTING}");
                    return Err(self.problem(start, message, "split it into several rules"));
                }
                Ok(())
            }
            ')' | ']' | '}' => {
                self.nesting = self.nesting.saturating_sub(1);
                self.at += 1;
                Ok(())
            }
            '?' => {
                self.choices += 1;
                self.at += 1;
                if self.choices > MAX_NESTING {
                    return Err(self.problem(start, format!("there are more than {MAX_NESTING} `?`"), ""));
                }
                Ok(())
            }
            '/' if self.peek(1) == Some('/') => {
                Err(self.problem(start, "an expression has no comments", "write it beside the rule, after #"))
            }
            '&' | '|' | '=' if self.peek(1) != Some(c) => {
                self.at += 1;
                Err(self.problem(
                    start,
                    format!("`{c}` alone means nothing"),
                    format!("did you mean `{c}{c}`?"),
                ))
            }
            '&' | '|' | '=' => {
                self.at += 2;
                Ok(())
            }
            '!' | '<' | '>' if self.peek(1) == Some('=') => {
                self.at += 2;
                Ok(())
            }
            '!' | '<' | '>' | '+' | '-' | '*' | '/' | '%' | '.' | ',' | ':' => {
                self.at += 1;
                Ok(())
            }
            _ => {
                self.at += 1;
                Err(self.problem(start, format!("{c:?} means nothing here"), "text stands in quotes: 'gpu'"))
            }
        }
    }

    fn word(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        if matches!(self.peek(0), Some('"' | '\'')) {
            return Err(self.problem(
                start,
                "letters before a quote are not taken",
                "write the text in plain quotes",
            ));
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Problem> {
        let (start, quote) = (self.at, self.chars[self.at]);
        if self.peek(1) == Some(quote) && self.peek(2) == Some(quote) {
            return Err(self.problem(start, "three quotes are not taken", "write the text in plain quotes"));
        }
        self.at += 1;
        loop {
            match self.peek(0) {
                Some('\\') => self.at += 2,
                Some('\n') | None => {
                    self.at = self.at.min(self.chars.len());
                    return Err(self.problem(
                        start,
                        "the text does not end",
                        format!("it needs a second {quote}"),
                    ));
                }
                Some(c) => {
                    self.at += 1;
                    if c == quote {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn number(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_digit())
            || (self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()))
        {
            self.at += 1;
        }
        if self.peek(0) == Some('%') && !self.goes_on_after_percent() {
            self.at += 1;
            return self.literal(start);
        }
        let digits = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_') {
            self.at += 1;
        }
        if self.at == digits { self.plain(start) } else { self.literal(start) }
    }

    /// A `%` after a number is a modulo where an operand follows it.
    fn goes_on_after_percent(&self) -> bool {
        let mut rest = self.chars[self.at + 1..].iter().skip_while(|c| c.is_whitespace());
        let starts_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '(' | '\'' | '"' | '-');
        match rest.next() {
            // `90% in [..]` is the one word that may follow.
            Some('i') => rest.next() != Some(&'n'),
            Some(c) => starts_word(*c),
            None => false,
        }
    }

    fn plain(&self, start: usize) -> Result<(), Problem> {
        let text: String = self.chars[start..self.at].iter().collect();
        if text.matches('.').count() > 1 || text.len() > 18 {
            return Err(self.problem(
                start,
                format!("`{text}` is not a number"),
                "numbers are written 8 or 0.5",
            ));
        }
        Ok(())
    }

    fn literal(&mut self, start: usize) -> Result<(), Problem> {
        let text: String = self.chars[start..self.at].iter().collect();
        match Literal::read(&text) {
            Ok(literal) => {
                self.literals.insert(start, literal);
                Ok(())
            }
            Err(help) => Err(self.problem(start, format!("`{text}` is not a quantity"), help)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (String, Vec<String>) {
        let lexed = lex(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        (lexed.text, lexed.literals.into_values().map(|literal| literal.text).collect())
    }

    #[test]
    fn quantities_give_way_to_names_of_the_same_length() {
        assert_eq!(taken("memory_available < 1Gi"), ("memory_available < _qq".into(), vec!["1Gi".into()]));
        assert_eq!(taken("memory > 90% && x").0, "memory > _qq && x");
        assert_eq!(taken("(memory > 90%)").0, "(memory > _qq)");
        assert_eq!(taken("7%3 == 1 || x % 2 == 0").0, "7%3 == 1 || x % 2 == 0");
        assert_eq!(taken("a < 1h30m").1, ["1h30m"]);
        assert_eq!(taken("name == '4Gi 90%'"), ("name == '4Gi 90%'".into(), vec![]));
        assert_eq!(taken(r"name == 'it\'s 4Gi'").1, Vec::<String>::new());
        assert_eq!(taken("a[0] + 0.5 > 1e3").1, ["1e3"]);
    }

    #[test]
    fn what_is_too_much_is_refused_with_its_place() {
        for (text, place, message) in [
            ("x".repeat(1025), (1, 1), "the expression has 1025 bytes"),
            ("1+".repeat(200) + "1", (1, 257), "the expression has more than 256 words"),
            ("(".repeat(13), (1, 13), "brackets are nested deeper than 12"),
            ("a?b:".repeat(13), (1, 50), "there are more than 12 `?`"),
            ("a ==\n 1gi".to_owned(), (2, 2), "`1gi` is not a quantity"),
            ("a = 1".to_owned(), (1, 3), "`=` alone means nothing"),
            ("'a".to_owned(), (1, 1), "the text does not end"),
            ("a == \u{a7}".to_owned(), (1, 6), "'\u{a7}' means nothing here"),
            (" \n ".to_owned(), (1, 1), "the expression is empty"),
            ("1.2.3".to_owned(), (1, 1), "`1.2.3` is not a number"),
        ] {
            let problem = lex(&text).unwrap_err();
            assert!(problem.message.starts_with(message), "{text}: {problem}");
            assert_eq!((problem.line, problem.column), place, "{text}: {problem}");
        }
    }
}
