//! What can be done to a scan, by name.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// See [`TABLE`]; so for all.
    Kill,
    /// SIGTERM.
    Term,
    /// A short SIGSTOP.
    Stop,
    /// A long SIGSTOP.
    Freeze,
    /// A connection reset.
    Reset,
    /// A connection cut within a message.
    Tear,
    /// A connection closed in one direction.
    Half,
    /// A short silence of a connection.
    Stall,
    /// A long silence of a connection.
    Blackout,
    /// A slow connection.
    Delay,
    /// Messages that come twice.
    Repeat,
    /// Messages that change places.
    Swap,
    /// Pixels with a bit that has flipped.
    Flip,
    /// A full disk.
    Disk,
    /// A finished file in the place of the new one, with a reader at it.
    Again,
}

/// What a kind of fault needs besides the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A small file system that can be mounted.
    Mount,
}

/// One row of the table of faults.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// Its name on the command line.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
}

const fn row(kind: Kind, name: &'static str, needs: Needs) -> Row {
    Row { kind, name, needs }
}

/// Lists all kinds; docs/chaos.md says what is expected of each.
pub const TABLE: &[Row] = &[
    row(Kind::Kill, "kill", Needs::Nothing),
    row(Kind::Term, "term", Needs::Nothing),
    row(Kind::Stop, "stop", Needs::Nothing),
    row(Kind::Freeze, "freeze", Needs::Nothing),
    row(Kind::Reset, "reset", Needs::Nothing),
    row(Kind::Tear, "tear", Needs::Nothing),
    row(Kind::Half, "half", Needs::Nothing),
    row(Kind::Stall, "stall", Needs::Nothing),
    row(Kind::Blackout, "blackout", Needs::Nothing),
    row(Kind::Delay, "delay", Needs::Nothing),
    row(Kind::Repeat, "repeat", Needs::Nothing),
    row(Kind::Swap, "swap", Needs::Nothing),
    row(Kind::Flip, "flip", Needs::Nothing),
    row(Kind::Disk, "disk", Needs::Mount),
    row(Kind::Again, "again", Needs::Nothing),
];

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TABLE.iter().find(|r| r.name == text).map(|r| r.kind).ok_or_else(|| {
            let names: Vec<&str> = TABLE.iter().map(|r| r.name).collect();
            format!("'{text}' is no fault; there are {}", names.join(", "))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = TABLE.iter().find(|r| r.kind == *self);
        f.write_str(row.map_or("", |r| r.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for row in TABLE {
            assert_eq!(row.kind.to_string().parse(), Ok(row.kind));
        }
        let error = "kil".parse::<Kind>().err();
        assert!(error.is_some_and(|e| e.contains("'kil'") && e.contains("kill, term")));
    }
}
