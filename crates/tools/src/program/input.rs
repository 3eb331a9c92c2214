//! Text from files and from standard input, which need not be neat.
//!
//! A byte order mark at the beginning is no part of the text, a line may end in CR LF, and the last one
//! need not end. What is not UTF-8 is reported with its line and column. A line and a file have a
//! greatest size.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

/// The lines of a stream, one by one.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: u64,
    wait: fn() -> io::Result<()>,
}

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// What is in it.
    pub text: Result<String, BadLine>,
}

/// Why a line is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// A byte is not UTF-8. The column counts characters, from 1.
    NotUtf8 {
        /// The bytes of the line.
        bytes: Vec<u8>,
        /// The column of the first bad byte.
        column: usize,
    },
    /// It has more than [`MAX_LINE_BYTES`].
    TooLong,
}

impl BadLine {
    /// What is wrong, for the line with a number.
    #[must_use]
    pub fn describe(&self, number: u64) -> String {
        match self {
            Self::NotUtf8 { column, .. } => format!("line {number}, column {column}: not UTF-8"),
            Self::TooLong => format!("line {number}: longer than {MAX_LINE_BYTES} bytes"),
        }
    }
}

impl<R: BufRead> Lines<R> {
    /// The lines of a reader.
    pub fn new(reader: R) -> Self {
        Self::waiting(reader, || Ok(()))
    }

    /// The same, for a reader that may be non-blocking: `wait` returns once it has input.
    pub(crate) fn waiting(reader: R, wait: fn() -> io::Result<()>) -> Self {
        Self {
            reader,
            number: 0,
            wait,
        }
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of the reader. What is wrong with a line is in the line.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let mut is_too_long = false;
        let mut is_end = true;
        loop {
            let filled = match self.reader.fill_buf() {
                Ok(filled) => filled,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    (self.wait)()?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if filled.is_empty() {
                break;
            }
            is_end = false;
            let end = filled.iter().position(|byte| *byte == b'\n');
            let part = &filled[..end.unwrap_or(filled.len())];
            // The rest of a line that is too long is read and forgotten.
            is_too_long |= bytes.len() + part.len() > MAX_LINE_BYTES;
            if !is_too_long {
                bytes.extend_from_slice(part);
            }
            let used = end.map_or(filled.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if is_end {
            return Ok(None);
        }
        self.number += 1;
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let text = if is_too_long {
            Err(BadLine::TooLong)
        } else {
            String::from_utf8(bytes).map_err(|error| {
                let (_, column) = place(error.as_bytes(), error.utf8_error().valid_up_to());
                BadLine::NotUtf8 {
                    column,
                    bytes: error.into_bytes(),
                }
            })
        };
        Ok(Some(Line {
            number: self.number,
            text,
        }))
    }
}

/// The text of a regular file. A pipe could keep a program waiting, deaf to signals, and a device could
/// fill its memory. The error is one line without the file's name.
///
/// # Errors
///
/// If it cannot be read, is no regular file, is larger than [`MAX_FILE_BYTES`] or not UTF-8.
pub fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_file(path).map_err(|error| error.to_string())?;
    decode(bytes)
}

/// The text of bytes, without a byte order mark.
fn decode(mut bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let (line, column) = place(error.as_bytes(), error.utf8_error().valid_up_to());
        format!("line {line}, column {column}: not UTF-8")
    })
}

/// The bytes of a regular file; see [`read_text`].
///
/// # Errors
///
/// If it cannot be read, is no regular file, or is larger than [`MAX_FILE_BYTES`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Opens a file without waiting, whatever it is. What is looked at beforehand can be another file by then.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;

        // A pipe would wait for a writer. A file of /proc may wait for something to be read. A terminal
        // would become the program's own.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// The line and the column of a byte, both from 1; the column in characters.
fn place(text: &[u8], at: usize) -> (usize, usize) {
    let before = String::from_utf8_lossy(&text[..at]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The most bytes that a line may have: 16 times as many as fit into a datagram.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The most bytes that a file may have: some hundred thousand rules, or names.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader, ErrorKind, Read};

    use proptest::prelude::*;

    use super::{BadLine, Lines, MAX_LINE_BYTES, decode, read_file};

    fn texts(input: &[u8]) -> Vec<Result<String, BadLine>> {
        let mut lines = Lines::new(input);
        let mut texts = Vec::new();
        while let Some(line) = lines.next_line().expect("memory can be read") {
            texts.push(line.text);
            assert_eq!(line.number, texts.len() as u64);
        }
        texts
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_are_no_text() {
        for (input, expected) in [
            ("", &[][..]),
            ("\n", &[""]),
            ("a\nb", &["a", "b"]),
            ("a\r\nb\r\n", &["a", "b"]),
            ("\u{feff}a\n\u{feff}b\n", &["a", "\u{feff}b"]),
            ("\u{feff}", &[""]),
            ("a\rb\r\r\n\n", &["a\rb\r", ""]),
        ] {
            let texts: Vec<_> = texts(input.as_bytes())
                .into_iter()
                .map(Result::unwrap_or_default)
                .collect();
            assert_eq!(texts, expected, "{input:?}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_found_and_the_next_line_is_read() {
        let not_utf8 = |bytes: &[u8], column| {
            Err(BadLine::NotUtf8 {
                bytes: bytes.to_vec(),
                column,
            })
        };
        assert_eq!(
            texts(b"\xe5\xa5\xbd\xff\nb\n\xef\xbb\xbf\xe5\xa5"),
            [
                not_utf8(b"\xe5\xa5\xbd\xff", 2),
                Ok("b".to_owned()),
                not_utf8(b"\xef\xbb\xbf\xe5\xa5", 2)
            ]
        );
        assert_eq!(
            decode(b"\xef\xbb\xbfa\r\n\xe5\xa5\xbd\xff".to_vec()),
            Err("line 2, column 2: not UTF-8".to_owned())
        );
        assert_eq!(decode(b"\xef\xbb\xbfa".to_vec()), Ok("a".to_owned()));
    }

    /// It would wait for a writer, and a reload with it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_is_refused_without_waiting_for_it() {
        use std::{env, fs, process};

        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let pipe = env::temp_dir().join(format!("rejoinder-pipe-{}", process::id()));
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe can be made");
        let read = read_file(&pipe);
        fs::remove_file(&pipe).expect("it is there");
        assert_eq!(
            read.expect_err("it is a pipe").to_string(),
            "it is no regular file"
        );
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut input = vec![b'x'; MAX_LINE_BYTES + 1];
        input.extend_from_slice(b"\nb");
        assert_eq!(texts(&input), [Err(BadLine::TooLong), Ok("b".to_owned())]);
        input.remove(0);
        assert_eq!(
            texts(&input)[0].as_ref().map(String::len),
            Ok(MAX_LINE_BYTES)
        );
    }

    /// A non-blocking pipe that has a byte every other time.
    struct Drops<'a>(&'a [u8], bool);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::WouldBlock.into());
            }
            (&mut self.0).take(1).read(buffer)
        }
    }

    proptest! {
        /// Whatever the bytes, and however they arrive, the lines are those of the bytes.
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(input in prop::collection::vec(
            prop::sample::select(b"a\r\n\xef\xbb\xbf\xff".to_vec()), 0..40,
        )) {
            let mut lines = Lines::new(BufReader::with_capacity(1, Drops(&input, false)));
            let mut found = Vec::new();
            while let Some(line) = lines.next_line()? {
                found.push(line.text);
            }
            prop_assert_eq!(found, texts(&input));
        }
    }
}
