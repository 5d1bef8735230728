//! `{scan}`, `{scan:06}`, `{label}`, `{tag}`, `{file}` and `{stem}` in paths and labels.
//!
//! A brace that is meant as one is doubled: `{{`, `}}`.

use std::fmt::Write;
use std::path::PathBuf;

/// What placeholders stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filling {
    /// `--scan`.
    pub scan: Option<u64>,
    /// `--tag`.
    pub tag: Option<String>,
    /// `data.label`, itself filled in.
    pub label: Option<String>,
    /// The file that has appeared in a watched folder.
    pub file: Option<PathBuf>,
}

impl Filling {
    /// Replaces the placeholders of a text.
    ///
    /// # Errors
    /// What is wrong with it, and the cure.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            let end = if brace == "{" { rest.find('}') } else { None };
            let Some(end) = end else {
                return Err(format!("'{text}' has a single '{brace}'; write '{brace}{brace}'"));
            };
            self.put(&rest[..end], &mut out)?;
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn put(&self, name: &str, out: &mut String) -> Result<(), String> {
        let (word, width) = match name.split_once(':') {
            None => (name, Some(0)),
            // As in Python's format: a leading zero, and a width.
            Some((word, digits)) => {
                (word, digits.strip_prefix('0').and_then(|n| n.parse::<usize>().ok()))
            }
        };
        let missing = |flag: &str| format!("'{{{name}}}' needs {flag}");
        match (word, width.filter(|&w| w <= 20)) {
            ("scan", Some(width)) => {
                let scan = self.scan.ok_or_else(|| missing("--scan NUMBER"))?;
                let _ = write!(out, "{scan:0width$}");
                Ok(())
            }
            ("label", Some(0)) => {
                out.push_str(self.label.as_ref().ok_or_else(|| missing("data.label"))?);
                Ok(())
            }
            ("tag", Some(0)) => {
                out.push_str(self.tag.as_ref().ok_or_else(|| missing("--tag TEXT"))?);
                Ok(())
            }
            ("file" | "stem", Some(0)) => {
                let file = self.file.as_deref().ok_or_else(|| missing("--watch FOLDER"))?;
                let part = if word == "file" { Some(file.as_os_str()) } else { file.file_stem() };
                out.push_str(&part.unwrap_or_default().to_string_lossy());
                Ok(())
            }
            _ => Err(format!(
                "'{{{name}}}' is no placeholder; there are {{scan}}, {{scan:06}}, {{label}}, {{tag}}, \
                 {{file}}, {{stem}}, and '{{{{' for a brace"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling() -> Filling {
        let file = Some(PathBuf::from("/raw/run_7.h5"));
        Filling { scan: Some(123), tag: Some("a".into()), label: Some("Au".into()), file }
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (text, wanted) in [
            ("raw/scan_{scan:06}.h5", "raw/scan_000123.h5"),
            ("{label}-{scan}{tag}.ptyd", "Au-123a.ptyd"),
            ("{{scan}} {scan:02}", "{scan} 123"),
            ("plain", "plain"),
            ("{file}", "/raw/run_7.h5"),
            ("out/{stem}.ptyd", "out/run_7.ptyd"),
        ] {
            assert_eq!(filling().fill(text).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_none_or_lacks_its_value_is_named() {
        let wrong = |filling: &Filling, text: &str, words: &str| {
            let error = filling.fill(text).err().unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        };
        wrong(&Filling::default(), "{scan:04}", "'{scan:04}' needs --scan NUMBER");
        wrong(&Filling::default(), "{tag}", "needs --tag");
        wrong(&Filling::default(), "{label}", "needs data.label");
        wrong(&Filling::default(), "{stem}", "needs --watch FOLDER");
        wrong(&filling(), "{scna}", "'{scna}' is no placeholder; there are {scan}");
        wrong(&filling(), "{scan:6}", "no placeholder");
        wrong(&filling(), "a{b", "single '{'; write '{{'");
        wrong(&filling(), "a}b", "single '}'; write '}}'");
    }
}
