//! The declarations of all parameters, and the typed structs that the roles receive.
//!
//! One [`ParamDecl`] carries type, default, limits, choices, unit, user level, help and
//! documentation of a parameter, and feeds parsing, checking, `ptystream params` and the schema.
//!
//! | module | what it holds |
//! |---|---|
//! | `data`, `pipeline` | the declarations of the two blocks |
//! | `check` | one value against its declaration |
//! | `tree` | nested blocks to dotted keys and back, unknown keys, the nearest known name |
//! | `typed`, `build`, `read` | the structs that the roles receive, and how they come from a checked tree |
//! | `describe`, `schema` | the declarations for people and for editors |

mod build;
mod check;
mod data;
mod describe;
mod pattern;
mod pipeline;
mod read;
mod schema;
mod tree;
mod typed;

pub use check::ParamFault;
pub use data::DATA;
pub use describe::markdown;
pub use pipeline::PIPELINE;
pub use schema::block_schema;
pub use tree::{Flat, declarations, default_tree, flatten, has_members, nearest};
pub use typed::*;

/// A type that a parameter's value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// Python's `None`; in TOML, which has no null, the text `"None"`.
    None,
    /// `true` or `false`.
    Bool,
    /// An integer.
    Int,
    /// A real number; an integer is taken as one.
    Float,
    /// A text.
    Str,
    /// A path of a file that is read; relative to the configuration's folder.
    InputPath,
    /// A path of a file that is written; relative to the working folder.
    OutputPath,
    /// Two integers, or one for both.
    IntPair,
    /// Two real numbers.
    FloatPair,
    /// Three truth values.
    BoolTriple,
    /// Any list.
    List,
    /// A file with an image: its path, or a table with `file` and, where they count, `key`, `invert` and
    /// `average`.
    Image,
    /// One such file, or a list of them.
    Images,
    /// A table that describes a scan's points by a formula.
    Pattern,
    /// A group of parameters of its own.
    Group,
}

/// A parameter's default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamDefault {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A text.
    Str(&'static str),
    /// A list without items.
    EmptyList,
}

/// The declaration of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct ParamDecl {
    /// Dotted name below its block: `rebin`, `intensities.file`.
    pub name: &'static str,
    /// Types that are taken; the first is the main one.
    pub types: &'static [ParamType],
    /// Value when it is not given.
    pub default: ParamDefault,
    /// Lowest number.
    pub low: Option<f64>,
    /// Whether `low` itself is refused.
    pub low_open: bool,
    /// Highest number.
    pub high: Option<f64>,
    /// The texts that are taken; empty: any.
    pub choices: &'static [&'static str],
    /// SI unit or field's unit, such as `m`, `keV`; empty: none.
    pub unit: &'static str,
    /// 0: everybody, 1: intermediate, 2: expert (ptypy's user levels).
    pub level: u8,
    /// One line.
    pub help: &'static str,
    /// More, where one line is not enough.
    pub doc: &'static str,
    /// What to do when a value is refused; ends the error's text.
    pub cure: &'static str,
    /// Whether the prepared bytes depend on it: part of a scan's identity.
    pub affects_bytes: bool,
}

/// Joins declarations of which a source has one list and shares another.
pub const fn joined<const A: usize, const B: usize, const N: usize>(
    own: [ParamDecl; A],
    shared: [ParamDecl; B],
) -> [ParamDecl; N] {
    assert!(A + B == N, "N is as many as both lists have");
    let mut all = [ParamDecl::new("", &[], ParamDefault::None, ""); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < A { own[at] } else { shared[at - A] };
        at += 1;
    }
    all
}

impl ParamDecl {
    /// Starts a declaration; the other fields have plain defaults.
    pub const fn new(
        name: &'static str,
        types: &'static [ParamType],
        default: ParamDefault,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            types,
            default,
            low: None,
            low_open: false,
            high: None,
            choices: &[],
            unit: "",
            level: 0,
            help,
            doc: "",
            cure: "",
            affects_bytes: true,
        }
    }

    /// Tells whether values name files that are read.
    pub fn is_input(&self) -> bool {
        use ParamType::{Image, Images, InputPath};
        self.types.iter().any(|ty| matches!(ty, InputPath | Image | Images))
    }

    /// Sets the lowest and the highest number.
    pub const fn limits(mut self, low: Option<f64>, high: Option<f64>) -> Self {
        self.low = low;
        self.high = high;
        self
    }

    /// Refuses `low` and all below.
    pub const fn above(mut self, low: f64) -> Self {
        self.low = Some(low);
        self.low_open = true;
        self
    }

    /// Sets what to do when a value is refused.
    pub const fn cure(mut self, cure: &'static str) -> Self {
        self.cure = cure;
        self
    }

    /// Sets the texts that are taken.
    pub const fn choices(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// Sets the unit.
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Sets the user level.
    pub const fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Sets the documentation.
    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Says that the prepared bytes do not depend on it.
    pub const fn bytes_unaffected(mut self) -> Self {
        self.affects_bytes = false;
        self
    }
}
