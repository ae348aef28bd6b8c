//! What was lost, doubled or wrong. A run with faults has no figures.

use std::fmt;

/// Examples that are kept of each kind.
const EXAMPLES: usize = 4;

/// Broken promises of a server, counted, with the first few in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There with another content or state.
    pub wrong: u64,
    examples: Vec<String>,
}

impl Faults {
    fn example(&mut self, words: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(words);
        }
    }

    /// Something acknowledged is not there.
    pub fn lost(&mut self, words: String) {
        self.lost += 1;
        self.example(words);
    }

    /// Something is there more than once.
    pub fn doubled(&mut self, words: String) {
        self.doubled += 1;
        self.example(words);
    }

    /// Something is there and is not what it should be.
    pub fn wrong(&mut self, words: String) {
        self.wrong += 1;
        self.example(words);
    }

    /// Adds what another look found.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.wrong += other.wrong;
        for words in other.examples {
            self.example(words);
        }
    }

    /// Nothing was lost, doubled or wrong.
    #[must_use]
    pub fn none(&self) -> bool {
        self.lost + self.doubled + self.wrong == 0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lost, {} doubled, {} wrong", self.lost, self.doubled, self.wrong)?;
        for example in &self.examples {
            write!(f, "; {example}")?;
        }
        Ok(())
    }
}
