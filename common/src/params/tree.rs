//! Nested blocks to dotted keys and back.

use super::{DATA, ParamDecl, ParamFault, ParamType};
use crate::value::Value;

/// A block taken apart by [`flatten`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flat {
    /// Dotted names of declared parameters and their values, unchecked.
    pub leaves: Vec<(String, Value)>,
    /// Dotted names that are not declared.
    pub unknown: Vec<String>,
    /// Groups that were given as something else.
    pub faults: Vec<ParamFault>,
}

/// Joins the declarations that all sources share with those of one source.
///
/// A source's declaration of a shared name takes the place of the shared one. A name that is a group too
/// (`mask`, a list of files or the group of `mask.key`) comes after its members.
pub fn declarations(own: &[ParamDecl]) -> Vec<ParamDecl> {
    let of_own = |name: &str| own.iter().find(|d| d.name == name);
    let shared = DATA.iter().map(|d| *of_own(d.name).unwrap_or(d));
    let rest = own.iter().filter(|o| DATA.iter().all(|d| d.name != o.name));
    let mut all: Vec<ParamDecl> = shared.chain(rest.copied()).collect();
    let groups: Vec<bool> = all.iter().map(|d| has_members(d.name, &all)).collect();
    let mut of_group = groups.into_iter();
    all.sort_by_cached_key(|_| of_group.next().unwrap_or_default());
    all
}

/// Tells whether there are parameters below a name.
pub fn has_members(name: &str, decls: &[ParamDecl]) -> bool {
    decls.iter().any(|d| is_below(d.name, name))
}

/// Makes the tree of all defaults.
pub fn default_tree(decls: &[ParamDecl]) -> Value {
    let mut tree = Value::Map(Vec::new());
    for decl in decls.iter().filter(|d| !d.takes(ParamType::Group)) {
        // The defaults of a group are those of its members.
        if !has_members(decl.name, decls) {
            tree.set_at(decl.name, decl.default.into());
        }
    }
    tree
}

/// Takes a block apart into the values of declared parameters, unknown names and misused groups.
///
/// Whatever stands below an unknown name is not looked at. A group of `None` is an empty group.
pub fn flatten(block: &Value, decls: &[ParamDecl]) -> Flat {
    let mut flat = Flat::default();
    walk(block, String::new(), decls, &mut flat);
    flat
}

fn walk(value: &Value, path: String, decls: &[ParamDecl], flat: &mut Flat) {
    let is_leaf = decls.iter().any(|d| d.name == path && !d.takes(ParamType::Group));
    // Where a name is both, a table is the group.
    let table = matches!(value, Value::Map(_)) && has_members(&path, decls);
    if is_leaf && !table {
        flat.leaves.push((path, value.clone()));
        return;
    }
    let members = || decls.iter().filter(|d| is_below(d.name, &path)).map(|d| d.name);
    let is_group = path.is_empty() || members().next().is_some();
    match value {
        _ if !is_group => flat.unknown.push(path),
        Value::Map(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(value, path, decls, flat);
            }
        }
        Value::None => {}
        other => {
            let members: Vec<_> = members().collect();
            let text = format!("{other} stands where a group is; give {}", members.join(", "));
            flat.faults.push(ParamFault::new(path, text));
        }
    }
}

fn is_below(name: &str, group: &str) -> bool {
    name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.'))
}

/// Finds the known name that is most like `name`; `None` if none is like it.
///
/// Upper and lower case are equal; a name that stands in another group counts by its last part.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let last = name.rsplit('.').next().unwrap_or(&name);
    known
        .into_iter()
        .map(|candidate| {
            let lower = candidate.to_lowercase();
            let whole = strsim::osa_distance(&name, &lower);
            let of_last = lower.rsplit('.').next().map_or(whole, |l| strsim::osa_distance(last, l));
            (whole.min(of_last + 1), whole, candidate)
        })
        .filter(|(distance, ..)| *distance <= 1.max(last.len() / 3))
        .min_by_key(|&(distance, whole, _)| (distance, whole))
        .map(|(.., candidate)| candidate)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ParamDefault;
    use super::*;

    const OWN: &[ParamDecl] = &[
        ParamDecl::new("intensities", &[ParamType::Group], ParamDefault::None, "The frames."),
        ParamDecl::new(
            "intensities.file",
            &[ParamType::InputPath],
            ParamDefault::None,
            "Its file.",
        ),
        ParamDecl::new("intensities.key", &[ParamType::Str], ParamDefault::Str("data"), "Its key."),
        ParamDecl::new("num_frames", &[ParamType::Int], ParamDefault::Int(100), "How many."),
    ];

    fn json(text: &str) -> Value {
        serde_json::from_str::<serde_json::Value>(text).unwrap().into()
    }

    #[test]
    fn a_source_declares_a_shared_name_anew() {
        let tree = default_tree(&declarations(OWN));
        assert_eq!(tree.get("num_frames"), Some(&Value::Int(100)));
        assert_eq!(tree.at("intensities.key"), Some(&Value::Str("data".into())));
        assert_eq!(tree.at("intensities.file"), Some(&Value::None));
        assert_eq!(declarations(OWN).len(), DATA.len() + 3);
    }

    #[test]
    fn blocks_come_apart() {
        let decls = declarations(OWN);
        let block = json(
            r#"{"rebin": 2, "intensities": {"file": "a.h5", "kye": "x", "deep": {"er": 1}}, "other": {"a": 1}, "sieve": null}"#,
        );
        let flat = flatten(&block, &decls);
        let leaves: Vec<_> = flat.leaves.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(leaves, ["rebin", "intensities.file"]);
        assert_eq!(flat.unknown, ["intensities.kye", "intensities.deep", "other", "sieve"]);
        assert!(flat.faults.is_empty());
    }

    #[test]
    fn a_name_may_be_a_list_of_files_and_a_group() {
        const OWN: &[ParamDecl] = &[
            ParamDecl::new("mask.key", &[ParamType::Str], ParamDefault::None, "Its key."),
            ParamDecl::new("mask.file", &[ParamType::InputPath], ParamDefault::None, "Its file."),
        ];
        let decls = declarations(OWN);
        let leaves = |text| flatten(&json(text), &decls).leaves;
        assert_eq!(leaves(r#"{"mask": {"key": "m"}}"#), [("mask.key".into(), json(r#""m""#))]);
        let list = r#"{"mask": ["a.npy", {"file": "b.h5", "key": "m"}]}"#;
        assert_eq!(
            leaves(list),
            [("mask".into(), json(r#"["a.npy", {"file": "b.h5", "key": "m"}]"#))]
        );
        // The list comes after the members of the group, whose place it takes.
        assert_eq!(decls.last().map(|d| d.name), Some("mask"));
        assert_eq!(default_tree(&decls).at("mask.key"), Some(&Value::None));
    }

    #[test]
    fn a_group_is_not_a_value_but_may_be_none() {
        let decls = declarations(OWN);
        let flat = flatten(&json(r#"{"intensities": "a.h5"}"#), &decls);
        assert_eq!(flat.faults[0].key, "intensities");
        assert!(flat.faults[0].text.contains("give intensities.file, intensities.key"));
        assert_eq!(flatten(&json(r#"{"intensities": null}"#), &decls), Flat::default());
    }

    #[test]
    fn the_nearest_name() {
        let known = || DATA.iter().map(|d| d.name).chain(["intensities.file"]);
        assert_eq!(nearest("rebinn", known()), Some("rebin"));
        assert_eq!(nearest("centre", known()), Some("center"));
        assert_eq!(nearest("experimentid", known()), Some("experimentID"));
        assert_eq!(nearest("file", known()), Some("dfile"));
        assert_eq!(nearest("intensitys.file", known()), Some("intensities.file"));
        assert_eq!(nearest("file", ["intensities.file"]), Some("intensities.file"));
        assert_eq!(nearest("wavelength", known()), None);
    }
}
