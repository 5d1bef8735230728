//! Whose file it is: what is found in its place, and what follows from it.
//!
//! A plain decision, without files: what was found goes in, what to do comes out.
//!
//! | found | same scan key | other scan key |
//! |---|---|---|
//! | nothing | new | new |
//! | finished | nothing to do (`force`: to `.old`, new) | to `.old`, new |
//! | unfinished | resume | refused (`fresh`: replaced) |
//! | not ours | to `.old`, new | to `.old`, new |

use ptystream_common::ptyd::record::Identity;
use std::collections::BTreeMap;

/// What stands where the file is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file that this program did not write.
    Foreign,
    /// A scan of ours, nothing missing.
    Finished(Identity),
    /// A scan of ours that was interrupted: a master, or parts without one.
    Unfinished(Identity),
}

/// What to do with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Begin a run; what is there is moved to `.old` first.
    Begin,
    /// Begin a run; the unfinished one is replaced.
    Replace,
    /// Go on with the run.
    Resume(Identity),
    /// Nothing.
    Complete,
    /// Refuse, since these key parts differ.
    Refuse(Vec<String>),
}

/// Decides.
///
/// # Source
/// ptypy `core/data.py` moves whatever it finds to `.old`; resuming and refusing are ours.
pub fn judge(
    found: &Found,
    scan_key: &str,
    parts: &BTreeMap<String, String>,
    force: bool,
    fresh: bool,
) -> Verdict {
    match found {
        Found::Nothing | Found::Foreign => Verdict::Begin,
        Found::Finished(identity) if identity.scan_key == scan_key && !force => Verdict::Complete,
        Found::Finished(_) => Verdict::Begin,
        Found::Unfinished(_) if fresh => Verdict::Replace,
        Found::Unfinished(identity) if identity.scan_key == scan_key => {
            Verdict::Resume(identity.clone())
        }
        Found::Unfinished(identity) => Verdict::Refuse(changed(&identity.key_parts, parts)),
    }
}

/// Names the key parts that differ, with both values where they are short.
pub fn changed(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let show = |v: Option<&String>| match v {
        None => "not set".to_owned(),
        Some(v) if v.chars().count() <= 40 => v.clone(),
        Some(v) => format!("{}...", v.chars().take(37).collect::<String>()),
    };
    let differing = names.into_iter().filter(|n| old.get(*n) != new.get(*n));
    let mut list: Vec<String> = differing
        .map(|n| format!("{n} ({} there, {} here)", show(old.get(n)), show(new.get(n))))
        .collect();
    if list.is_empty() {
        list.push("its scan key".to_owned());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(key: &str) -> Identity {
        let key_parts = [("data.rebin".to_owned(), key.to_owned())].into();
        Identity { run_id: 1, epoch: 3, scan_key: key.to_owned(), key_parts }
    }

    #[test]
    fn every_row_of_the_table_holds() {
        let here = identity("2");
        let judge = |found: &Found, force, fresh| {
            judge(found, &here.scan_key, &here.key_parts, force, fresh)
        };
        let (same, other) = (identity("2"), identity("4"));
        for (found, plain, force, fresh) in [
            (Found::Nothing, Verdict::Begin, Verdict::Begin, Verdict::Begin),
            (Found::Foreign, Verdict::Begin, Verdict::Begin, Verdict::Begin),
            (Found::Finished(same.clone()), Verdict::Complete, Verdict::Begin, Verdict::Complete),
            (Found::Finished(other.clone()), Verdict::Begin, Verdict::Begin, Verdict::Begin),
            (
                Found::Unfinished(same.clone()),
                Verdict::Resume(same.clone()),
                Verdict::Resume(same),
                Verdict::Replace,
            ),
            (
                Found::Unfinished(other.clone()),
                Verdict::Refuse(vec!["data.rebin (4 there, 2 here)".to_owned()]),
                Verdict::Refuse(vec!["data.rebin (4 there, 2 here)".to_owned()]),
                Verdict::Replace,
            ),
        ] {
            assert_eq!(judge(&found, false, false), plain, "{found:?}");
            assert_eq!(judge(&found, true, false), force, "{found:?} with force");
            assert_eq!(judge(&found, false, true), fresh, "{found:?} with fresh");
        }
    }

    #[test]
    fn a_value_that_only_one_side_has_is_named() {
        let old = [("a".to_owned(), "1".to_owned())].into();
        let new = [("b".to_owned(), "x".repeat(50))].into();
        let text = changed(&old, &new).join(", ");
        assert_eq!(
            text,
            format!("a (1 there, not set here), b (not set there, {}... here)", "x".repeat(37))
        );
    }
}
