//! Kinds of failure, and the exit codes they lead to.

use serde::{Deserialize, Serialize};

/// What a failure is about; decides the exit code and what a user looks at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line or the configuration (exit code 2).
    Config,
    /// Raw data, positions or what belongs to them (exit code 3).
    Input,
    /// Another role, or the way to it (exit code 4).
    Peer,
    /// The file to be written, or its disk (exit code 6).
    Output,
    /// The scan was aborted (exit code 7).
    Aborted,
}

impl Kind {
    /// Returns the exit code of a process that ends for this reason.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Config => 2,
            Self::Input => 3,
            Self::Peer => 4,
            Self::Output => 6,
            Self::Aborted => 7,
        }
    }
}

/// A failure that ends a scan, in a form that travels to the other roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What it is about.
    pub kind: Kind,
    /// What was wrong, where, and the cure.
    pub text: String,
}

impl Failure {
    /// Makes a failure.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Writes an error and its sources in one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
