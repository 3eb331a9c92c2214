use std::io::{self, ErrorKind};

/// An error in a form that can be copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastError {
    kind: ErrorKind,
    os_code: Option<i32>,
}

impl LastError {
    pub(super) fn new(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            os_code: error.raw_os_error(),
        }
    }
}

impl From<LastError> for io::Error {
    fn from(error: LastError) -> Self {
        match error.os_code {
            Some(code) => Self::from_raw_os_error(code),
            None => error.kind.into(),
        }
    }
}
