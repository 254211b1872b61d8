//! Bytes read as choices, so that an engine that changes bytes changes what is done.

/// Reads choices off bytes. At their end every choice is the first one.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Choices from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { rest: bytes }
    }

    /// Nothing is left.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte, 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `count`, which is at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    /// One of these.
    pub fn one_of<T: Clone>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())].clone()
    }

    /// Yes or no.
    pub fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number: small ones often, the ends sometimes, any in between.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            0..=159 => u64::from(self.byte()),
            160..=199 => u64::from(self.byte()) * 1_000,
            200..=219 => u64::MAX - u64::from(self.byte()),
            220..=229 => (u64::MAX >> 1) + u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
