use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// An answer that a [`Store`](super::Store) can keep: what an async handler in a
/// [`SharedDedup`](super::SharedDedup) returns.
///
/// | answer | what is kept |
/// | --- | --- |
/// | `()`, `None` | that there is no response |
/// | `Some(x)`, `Ok(x)` | `x` |
/// | `[x, y]` | both |
/// | `Err(error)` | nothing: the next copy of the request is worked on |
/// | `String`, `Cow<'static, str>`, `Vec<u8>`, `Bytes`, `BytesMut` | the bytes |
///
/// An answer type of your own implements it, by hand or with a crate such as `postcard`. Its form is
/// read by other versions of the program during an update, so a form that changes begins with a version.
///
/// ```
/// use rejoinder::aio::store::StoredAnswer;
///
/// #[derive(Debug, PartialEq)]
/// struct Sold {
///     ticket: u32,
/// }
///
/// impl StoredAnswer for Sold {
///     fn save(&self, out: &mut Vec<u8>) -> bool {
///         out.extend(self.ticket.to_be_bytes());
///         true
///     }
///
///     fn load(saved: &[u8]) -> Option<Self> {
///         let ticket = u32::from_be_bytes(saved.try_into().ok()?);
///         Some(Self { ticket })
///     }
/// }
///
/// let mut saved = Vec::new();
/// assert!(Some(Sold { ticket: 7 }).save(&mut saved));
/// assert_eq!(Option::load(&saved), Some(Some(Sold { ticket: 7 })));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an answer that a store can keep",
    label = "no `StoredAnswer`",
    note = "return `String` instead of `&'static str`, `Vec<u8>` instead of `&'static [u8]`, or implement `StoredAnswer` for the answer"
)]
pub trait StoredAnswer: Sized {
    /// Appends what [`load`](Self::load) needs to make the same answer again. Returns `false` if the
    /// answer is not to be kept.
    fn save(&self, out: &mut Vec<u8>) -> bool;

    /// Makes the answer again. `None`: these are not the bytes of such an answer.
    fn load(saved: &[u8]) -> Option<Self>;
}

impl StoredAnswer for () {
    fn save(&self, _: &mut Vec<u8>) -> bool {
        true
    }

    fn load(saved: &[u8]) -> Option<Self> {
        saved.is_empty().then_some(())
    }
}

impl<T: StoredAnswer> StoredAnswer for Option<T> {
    fn save(&self, out: &mut Vec<u8>) -> bool {
        out.push(self.is_some().into());
        self.as_ref().is_none_or(|answer| answer.save(out))
    }

    fn load(saved: &[u8]) -> Option<Self> {
        match saved.split_first()? {
            (0, []) => Some(None),
            (1, rest) => T::load(rest).map(Some),
            _ => None,
        }
    }
}

impl<T: StoredAnswer, E> StoredAnswer for Result<T, E> {
    fn save(&self, out: &mut Vec<u8>) -> bool {
        self.as_ref().is_ok_and(|answer| answer.save(out))
    }

    fn load(saved: &[u8]) -> Option<Self> {
        T::load(saved).map(Ok)
    }
}

impl<T: StoredAnswer, const N: usize> StoredAnswer for [T; N] {
    fn save(&self, out: &mut Vec<u8>) -> bool {
        self.iter().all(|answer| {
            let begin = out.len();
            out.extend([0; LEN_BYTES]);
            let is_kept = answer.save(out);
            let bytes = out.len() - begin - LEN_BYTES;
            let Ok(len) = u32::try_from(bytes) else {
                return false;
            };
            out[begin..begin + LEN_BYTES].copy_from_slice(&len.to_be_bytes());
            is_kept
        })
    }

    fn load(mut saved: &[u8]) -> Option<Self> {
        let mut answers = Vec::with_capacity(N);
        for _ in 0..N {
            let (len, rest) = saved.split_first_chunk::<LEN_BYTES>()?;
            let (answer, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            answers.push(T::load(answer)?);
            saved = rest;
        }
        if !saved.is_empty() {
            return None;
        }
        answers.try_into().ok()
    }
}

macro_rules! text_answer {
    ($($text:ty),*) => {$(
        impl StoredAnswer for $text {
            fn save(&self, out: &mut Vec<u8>) -> bool {
                out.extend_from_slice(self.as_bytes());
                true
            }

            fn load(saved: &[u8]) -> Option<Self> {
                String::from_utf8(saved.to_vec()).ok().map(Self::from)
            }
        }
    )*};
}
text_answer!(String, Cow<'static, str>);

macro_rules! bytes_answer {
    ($($bytes:ty),*) => {$(
        impl StoredAnswer for $bytes {
            fn save(&self, out: &mut Vec<u8>) -> bool {
                out.extend_from_slice(self);
                true
            }

            fn load(saved: &[u8]) -> Option<Self> {
                Some(saved.to_vec().into_iter().collect())
            }
        }
    )*};
}
bytes_answer!(Vec<u8>, BytesMut, Bytes);

const LEN_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn check<T: StoredAnswer + PartialEq + Debug>(answer: &T) {
        let mut saved = Vec::new();
        assert!(answer.save(&mut saved));
        assert_eq!(T::load(&saved).as_ref(), Some(answer));
    }

    #[test]
    fn an_answer_is_the_same_after_save_and_load() {
        check(&());
        check(&None::<String>);
        check(&Some(String::new()));
        check(&Some(Some(Cow::Borrowed("你好"))));
        check(&vec![0_u8, 255]);
        check(&Ok::<_, ()>(Bytes::from_static(b"x")));
        check(&[Some(BytesMut::from(&b"a"[..])), None]);
        check(&[(); 0]);
    }

    #[test]
    fn an_error_is_not_kept() {
        assert!(!Err::<(), _>("broken").save(&mut Vec::new()));
        assert!(!Some(Err::<(), _>("broken")).save(&mut Vec::new()));
        assert!(![Ok(()), Err("broken")].save(&mut Vec::new()));
    }

    proptest! {
        /// What a store returns may be of another version of the program, or of another program.
        #[test]
        fn any_bytes_can_be_loaded(saved in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = <()>::load(&saved);
            let _ = String::load(&saved);
            let _ = Option::<Vec<u8>>::load(&saved);
            if let Some(answers) = <[Option<Bytes>; 2]>::load(&saved) {
                let mut again = Vec::new();
                answers.save(&mut again);
                prop_assert_eq!(again, saved);
            }
        }
    }
}
