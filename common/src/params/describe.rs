//! The declarations for people: as text and as a Markdown table.

use super::{ParamDecl, ParamType};
use crate::value::Value;
use std::fmt;

impl fmt::Display for ParamType {
    /// Writes the type's name as ptypy's parameter descriptions do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Str => "str",
            Self::InputPath => "file",
            Self::OutputPath => "file (written)",
            Self::IntPair => "(int, int)",
            Self::FloatPair => "(float, float)",
            Self::BoolTriple => "(bool, bool, bool)",
            Self::List => "list",
            Self::Image => "image",
            Self::Pattern => "pattern",
            Self::Images => "image or list of images",
            Self::Group => "Param",
        })
    }
}

impl ParamDecl {
    /// Writes the declaration as a block of text, one property a line; `block` leads the name.
    ///
    /// # Source
    /// ptypy `utils/descriptor.py`, `to_string` of a parameter: the same properties.
    pub fn describe(&self, block: &str) -> String {
        let mut text = format!("[{block}.{}]\n", self.name);
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("{name:<10}= {value}\n"));
            }
        };
        let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
        line("type", &self.type_names());
        line("default", &Value::from(self.default).to_string());
        line(if self.low_open { "above" } else { "lowlim" }, &number(self.low));
        line("uplim", &number(self.high));
        line("choices", &self.choices.join(", "));
        line("unit", self.unit);
        line("userlevel", &self.level.to_string());
        line("help", self.help);
        line("doc", &self.doc.replace('\n', &format!("\n{:12}", "")));
        text
    }

    fn type_names(&self) -> String {
        self.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Writes declarations as a Markdown table.
pub fn markdown(decls: &[ParamDecl]) -> String {
    let mut text = String::from(
        "| name | type | default | limits | unit | level | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    for decl in decls {
        let choices = match (decl.choices, decl.takes(ParamType::None)) {
            ([], _) => String::new(),
            (choices, none) => {
                let mut words: Vec<_> = choices.iter().map(|c| format!("`{c}`")).collect();
                words.extend(none.then(|| "`None`".to_owned()));
                format!(" One of {}.", words.join(", "))
            }
        };
        let doc = if decl.doc.is_empty() { String::new() } else { format!(" {}", decl.doc) };
        let cells = [
            format!("`{}`", decl.name),
            decl.type_names(),
            format!("`{}`", Value::from(decl.default)),
            decl.range().trim_start().trim_start_matches("of ").to_owned(),
            decl.unit.to_owned(),
            decl.level.to_string(),
            format!("{}{choices}{doc}", decl.help),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::DATA;
    use super::*;

    #[test]
    fn a_parameter_is_described_by_its_declaration() {
        let rebin = DATA.iter().find(|d| d.name == "rebin").unwrap().describe("data");
        let start = "[data.rebin]\n\
                     type      = int, None\n\
                     default   = None\n\
                     lowlim    = 1\n\
                     uplim     = 32\n\
                     userlevel = 1\n\
                     help      = How many pixels are averaged along each axis.\n\
                     doc       = The mean of ";
        assert!(rebin.starts_with(start), "{rebin}");
        let energy = DATA.iter().find(|d| d.name == "energy").unwrap().describe("data");
        assert!(energy.contains("above     = 0\nunit      = keV\n"), "{energy}");
    }

    #[test]
    fn a_table_has_a_line_for_each_parameter() {
        let table = markdown(DATA);
        assert_eq!(table.lines().count(), DATA.len() + 2);
        assert!(table.contains("| `rebin` | int, None | `None` | from 1 to 32 |"));
        assert!(table.lines().all(|l| l.replace("\\|", "").matches('|').count() == 8));
    }
}
