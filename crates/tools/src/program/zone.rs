//! The time zone: a `TZ` that names none is reported, because times would be in UTC without a word.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use chrono::Local;

/// The offset in use, as in `UTC+08:00`.
pub(crate) fn offset() -> String {
    format!("UTC{}", Local::now().format("%:z"))
}

/// What is wrong with the variable `TZ`.
pub(crate) fn problem() -> Option<String> {
    let value = env::var_os("TZ")?;
    let text = value.to_string_lossy();
    (!is_known(&text)).then(|| {
        format!("TZ `{text}` is neither a time zone of this machine nor a rule of POSIX; times are in {}", offset())
    })
}

/// Whether the value of `TZ` is one of those that `tzset(3)` describes.
fn is_known(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    // Without a database, these two are known all the same.
    if ["", "UTC", "GMT"].contains(&name) || is_rule(name) {
        return true;
    }
    if name.starts_with('/') {
        return is_zone(Path::new(name));
    }
    FOLDERS
        .iter()
        .any(|folder| is_zone(&Path::new(folder).join(name)))
}

/// Whether a file begins as one of the database does (RFC 9636 §3.1).
fn is_zone(path: &Path) -> bool {
    // A pipe would not open until another program opens it, too.
    if !path.is_file() {
        return false;
    }
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"TZif"
}

/// `CST-8`, `<-0330>3:30`, `EST5EDT,M3.2.0,M11.1.0`: a name, and an offset.
fn is_rule(text: &str) -> bool {
    let rest = match text.strip_prefix('<') {
        Some(rest) => rest.split_once('>').map_or("", |(_, rest)| rest),
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    };
    let name = text.len() - rest.len();
    name >= 3
        && rest
            .trim_start_matches(['+', '-'])
            .starts_with(|c: char| c.is_ascii_digit())
}

const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn rules_of_posix_are_known_and_words_are_not() {
        for known in [
            "",
            ":",
            "CST-8",
            "<-0330>3:30",
            "EST5EDT,M3.2.0,M11.1.0",
            "UTC0",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in [
            "Mars/Olympus",
            "/nowhere/zone",
            "8",
            "CST",
            "<+08",
            "Asia/",
            "../passwd",
            // Files that are there, and no zones.
            "/etc/passwd",
            "../../../etc/passwd",
            "tzdata.zi",
        ] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }
}
