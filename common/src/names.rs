//! Names of files and roles: their order, and patterns that they fit.

/// Makes a key by which the numbers in a name sort as numbers: `frame_9` before `frame_10`.
pub fn natural(name: &str) -> (Vec<(String, u64)>, String) {
    let (mut key, mut text, mut digits) = (Vec::new(), String::new(), String::new());
    for c in name.chars().chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            key.push((std::mem::take(&mut text), digits.parse().unwrap_or(u64::MAX)));
            digits.clear();
        }
        text.push(c);
    }
    key.push((text, 0));
    (key, name.to_owned())
}

/// Tells whether a whole name fits a pattern: `*` is any text, `?` any letter.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (mut p, mut n) = (pattern.chars(), name.chars());
    match p.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = p.as_str();
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| fits(rest, &name[at..]))
        }
        Some(c) => n.next().is_some_and(|d| c == '?' || c == d) && fits(p.as_str(), n.as_str()),
    }
}

/// Returns this machine's name; empty where the system does not tell.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_their_natural_order() {
        let mut files = ["f_10.tif", "f_9.tif", "f_2_b.tif", "f_2_a.tif", "e_11.tif", "f_09.tif"];
        files.sort_by_cached_key(|name| natural(name));
        let wanted = ["e_11.tif", "f_2_a.tif", "f_2_b.tif", "f_09.tif", "f_9.tif", "f_10.tif"];
        assert_eq!(files, wanted);
        let mut roles = ["rank 10", "rank 2.10", "rank 2.9", "host-7.0", "rank 2"];
        roles.sort_by_cached_key(|name| natural(name));
        assert_eq!(roles, ["host-7.0", "rank 2", "rank 2.9", "rank 2.10", "rank 10"]);
    }

    #[test]
    fn patterns_fit_whole_names() {
        assert!(fits("scan_*_?.edf", "scan_12_a.edf") && fits("*", "x") && fits("*", ""));
        assert!(fits("*.h5", "größe.h5") && fits("", ""));
        assert!(!fits("scan_*.edf", "scan_1.edf.tmp") && !fits("?", "") && !fits("", "x"));
    }
}
