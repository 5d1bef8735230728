//! The keys of a file that come nearest to a wrong one.

/// Where the search in a file stops.
const DEPTH: usize = 12;
const LIMIT: usize = 5000;
const SHOWN: usize = 3;

/// Writes the hint at the end of an error.
pub(super) fn hint(near: &[String]) -> String {
    match near {
        [] => "; the file holds no datasets".into(),
        near => format!(
            "; there is {}",
            near.iter().map(|k| format!("'{k}'")).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Finds the datasets whose keys are most like `key`.
pub(super) fn nearest(file: &hdf5::File, key: &str) -> Vec<String> {
    let mut all = Vec::new();
    collect(file, "", 0, &mut all);
    let key = key.trim_matches('/');
    let last = |k: &str| k.rsplit('/').next().unwrap_or_default().to_owned();
    let name = last(key);
    let likeness = |k: &String| {
        let inside = if k.starts_with(&format!("{key}/")) { 1.0 } else { 0.0 };
        inside
            + strsim::normalized_levenshtein(k, key)
            + strsim::normalized_levenshtein(&last(k), &name)
    };
    all.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    all.truncate(SHOWN);
    all
}

fn collect(group: &hdf5::Group, prefix: &str, depth: usize, all: &mut Vec<String>) {
    let Ok(names) = group.member_names() else { return };
    for name in names {
        if all.len() >= LIMIT {
            return;
        }
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if let Ok(inner) = group.group(&name) {
            if depth < DEPTH {
                collect(&inner, &key, depth + 1, all);
            }
        } else if group.dataset(&name).is_ok() {
            all.push(key);
        }
    }
}
