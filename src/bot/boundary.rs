/// The greatest place up to `at` where a character begins or the text ends: `str::floor_char_boundary`,
/// which the oldest Rust that is supported does not have.
#[inline]
pub(super) fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
