//! The system calls that move many datagrams at once: the one place with unsafe code.
//!
//! Nothing here keeps a pointer beyond the call that it was made for: the kernel's headers are built
//! on the stack, from borrowed memory, each time.
#![expect(
    unsafe_code,
    reason = "no safe wrapper of recvmmsg and sendmmsg reuses memory and reports truncation"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "libc's types for small lengths and flags differ from one C library to the next"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::cmsg::{CONTROL_BYTES, Control};
use super::sockaddr::ADDRESS_BYTES;

/// The most messages per system call.
pub(super) const MAX_MESSAGES: usize = 128;
/// The most slices per system call, and so at least of one message: the kernel takes 1,024.
pub(super) const MAX_SLICES: usize = 256;

/// What comes with a message beside its payload, in both directions (`msghdr`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) address: [u8; ADDRESS_BYTES],
    pub(super) address_len: usize,
    pub(super) control: Control,
    pub(super) control_len: usize,
    /// Received only: the length of the payload and the flags.
    pub(super) len: usize,
    pub(super) flags: i32,
}

impl Header {
    const EMPTY: Self = Self {
        address: [0; ADDRESS_BYTES],
        address_len: 0,
        control: Control([0; CONTROL_BYTES]),
        control_len: 0,
        len: 0,
        flags: 0,
    };

    /// The first of the headers, after as many were added as are missing.
    pub(super) fn at_least(headers: &mut Vec<Self>, count: usize) -> &mut [Self] {
        if headers.len() < count {
            headers.resize(count, Self::EMPTY);
        }
        &mut headers[..count]
    }
}

/// Receives one message into each of the buffers, at most as many as there are headers, and returns
/// how many arrived. With `block`, it waits for the first, as the socket's mode and timeout say.
///
/// At least one of the calls must be allowed; without `recvmmsg`, one message is received.
pub(super) fn receive<'a>(
    socket: impl AsFd,
    buffers: impl Iterator<Item = &'a mut [u8]>,
    headers: &mut [Header],
    block: bool,
    calls: Calls,
) -> io::Result<usize> {
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_MESSAGES];
    let mut raw = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let most = if calls.many { MAX_MESSAGES } else { 1 };
    let mut count = 0;
    for ((buffer, header), (slice, raw)) in buffers
        .zip(headers.iter_mut())
        .zip(slices.iter_mut().zip(raw.iter_mut()))
        .take(most)
    {
        let slice = slice.write(libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        });
        // SAFETY: mmsghdr is a C struct of integers and raw pointers, for which zero is valid.
        let raw = raw.write(unsafe { mem::zeroed() });
        raw.msg_hdr.msg_name = header.address.as_mut_ptr().cast();
        raw.msg_hdr.msg_namelen = ADDRESS_BYTES as _;
        raw.msg_hdr.msg_iov = slice;
        raw.msg_hdr.msg_iovlen = 1;
        raw.msg_hdr.msg_control = header.control.0.as_mut_ptr().cast();
        raw.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        count += 1;
    }
    let socket = socket.as_fd().as_raw_fd();
    let dont_wait = if block { 0 } else { NO_WAIT };
    let first = raw.as_mut_ptr().cast::<libc::mmsghdr>();
    let received = match count {
        0 => 0,
        1 if calls.one => {
            // SAFETY: one header was initialised above. Its pointers lead to memory of the stated
            // lengths, borrowed mutably and without overlap until this function returns.
            let len = unsafe { libc::recvmsg(socket, &raw mut (*first).msg_hdr, dont_wait) };
            let len = u32::try_from(len).map_err(|_| io::Error::last_os_error())?;
            // SAFETY: the same header, which nothing else refers to.
            unsafe { (*first).msg_len = len };
            1
        }
        _ => {
            let flags = libc::MSG_WAITFORONE | dont_wait;
            // SAFETY: `count` headers were initialised above. Their pointers lead to memory of the
            // stated lengths, borrowed mutably and without overlap until this function returns. No
            // timeout is passed.
            let received =
                unsafe { libc::recvmmsg(socket, first, count as _, flags as _, ptr::null_mut()) };
            usize::try_from(received).map_err(|_| io::Error::last_os_error())?
        }
    };
    for (header, raw) in headers.iter_mut().zip(&raw).take(received) {
        // SAFETY: the first `count` headers are initialised, and no more than that were received.
        let raw = unsafe { raw.assume_init_ref() };
        header.len = raw.msg_len as usize;
        header.address_len = (raw.msg_hdr.msg_namelen as usize).min(ADDRESS_BYTES);
        #[allow(clippy::unnecessary_cast, reason = "a size_t in glibc, less in musl")]
        let control_len = raw.msg_hdr.msg_controllen as usize;
        header.control_len = control_len.min(CONTROL_BYTES);
        header.flags = raw.msg_hdr.msg_flags;
    }
    Ok(received)
}

/// Sends the first messages: each is the concatenation of its slices, which are ranges of the arena,
/// and goes where its header says. Returns how many were sent, of at most [`MAX_MESSAGES`] with
/// [`MAX_SLICES`] in all; an error is the first one's. It never waits for room in the send buffer.
///
/// At least one of the calls must be allowed; without `sendmmsg`, one message is sent.
pub(super) fn send<'a>(
    socket: impl AsFd,
    arena: &[u8],
    messages: impl Iterator<Item = (&'a Header, &'a [Range<usize>])>,
    calls: Calls,
) -> io::Result<usize> {
    let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SLICES];
    let mut raw = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let mut spare = &mut slices[..];
    let most = if calls.many { MAX_MESSAGES } else { 1 };
    let mut count = 0;
    for ((header, ranges), raw) in messages.zip(&mut raw).take(most) {
        let Some((mine, others)) = spare.split_at_mut_checked(ranges.len()) else {
            break;
        };
        spare = others;
        for (slice, range) in mine.iter_mut().zip(ranges) {
            let bytes = &arena[range.clone()];
            slice.write(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        // SAFETY: mmsghdr is a C struct of integers and raw pointers, for which zero is valid.
        let raw = raw.write(unsafe { mem::zeroed() });
        if header.address_len > 0 {
            let address = &header.address[..header.address_len];
            raw.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
            raw.msg_hdr.msg_namelen = address.len() as _;
        }
        raw.msg_hdr.msg_iov = mine.as_mut_ptr().cast();
        raw.msg_hdr.msg_iovlen = ranges.len() as _;
        if header.control_len > 0 {
            let control = &header.control.0[..header.control_len];
            raw.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
            raw.msg_hdr.msg_controllen = control.len() as _;
        }
        count += 1;
    }
    let socket = socket.as_fd().as_raw_fd();
    let first = raw.as_mut_ptr().cast::<libc::mmsghdr>();
    match count {
        0 => Ok(0),
        1 if calls.one => {
            // SAFETY: one header was initialised above, and as many slices as it says. What they
            // point to is borrowed until this function returns, has the stated lengths, and is only
            // read.
            let sent = unsafe { libc::sendmsg(socket, &raw const (*first).msg_hdr, NO_WAIT) };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(1)
        }
        _ => {
            // SAFETY: `count` headers were initialised above, and as many slices as they say. What
            // they point to is borrowed until this function returns, has the stated lengths, and is
            // only read; the kernel writes `msg_len` of the headers, which are exclusively ours.
            let sent = unsafe { libc::sendmmsg(socket, first, count as _, NO_WAIT as _) };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        }
    }
}

/// Whether the kernel has a system call and lets this process make it: asked with a descriptor that
/// none has, which the kernel looks at last.
pub(super) fn is_allowed(call: Call) -> bool {
    // SAFETY: msghdr is a C struct of integers and raw pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    let result = match call {
        // SAFETY: the header is borrowed for the call, and has neither address, data nor control.
        Call::Recvmsg => unsafe { libc::recvmsg(-1, &raw mut header, 0) },
        // SAFETY: as above.
        Call::Sendmsg => unsafe { libc::sendmsg(-1, &raw const header, 0) },
        // SAFETY: with a length of 0 the array is not looked at.
        Call::Recvmmsg => unsafe {
            libc::recvmmsg(-1, ptr::null_mut(), 0, 0, ptr::null_mut()) as isize
        },
        // SAFETY: with a length of 0 the array is not looked at.
        Call::Sendmmsg => unsafe { libc::sendmmsg(-1, ptr::null_mut(), 0, 0) as isize },
    };
    result >= 0 || !is_refusal(&io::Error::last_os_error())
}

/// Whether an error may mean that the system call as such is refused: by an old kernel, or by a
/// filter of system calls. A firewall refuses single datagrams with the same code.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES)
    )
}

/// A system call that moves messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Recvmsg,
    Recvmmsg,
    Sendmsg,
    Sendmmsg,
}

/// Which calls of one direction may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calls {
    /// `recvmsg` or `sendmsg`.
    pub(super) one: bool,
    /// `recvmmsg` or `sendmmsg`.
    pub(super) many: bool,
}

impl Calls {
    pub(super) const NONE: Self = Self {
        one: false,
        many: false,
    };
}

/// Sets an option whose value is a C `int`.
pub(super) fn set_option(
    socket: impl AsFd,
    (level, name): (i32, i32),
    value: i32,
) -> io::Result<()> {
    // SAFETY: the value is an int, alive during the call, and its length is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            INT_BYTES,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads an option whose value is a C `int`.
pub(super) fn option(socket: impl AsFd, (level, name): (i32, i32)) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut len = INT_BYTES;
    // SAFETY: the value is an int, borrowed mutably during the call, as is its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

const INT_BYTES: libc::socklen_t = 4;
const NO_WAIT: i32 = libc::MSG_DONTWAIT;

/// Makes these calls fail with an error in the calling thread, for the rest of its life, as a service
/// manager's filter does (seccomp(2)).
#[cfg(test)]
pub(super) fn forbid(calls: &[Call], code: i32) {
    let rules = calls.iter().map(|call| {
        let number = match call {
            Call::Recvmsg => libc::SYS_recvmsg,
            Call::Recvmmsg => libc::SYS_recvmmsg,
            Call::Sendmsg => libc::SYS_sendmsg,
            Call::Sendmmsg => libc::SYS_sendmmsg,
        };
        vec![(0, number as u32)]
    });
    refuse(rules, code);
}

/// Makes setting this option fail in the same way, as on a system that has a fixed value for it.
#[cfg(test)]
pub(super) fn forbid_option((level, name): (i32, i32), code: i32) {
    let argument = |index: u32| 16 + 8 * index + if cfg!(target_endian = "big") { 4 } else { 0 };
    let rule = vec![
        (0, libc::SYS_setsockopt as u32),
        (argument(1), level as u32),
        (argument(2), name as u32),
    ];
    refuse([rule], code);
}

/// A rule has the offsets of numbers in `struct seccomp_data`, and what they must be.
#[cfg(test)]
fn refuse(rules: impl IntoIterator<Item = Vec<(u32, u32)>>, code: i32) {
    let instruction = |op: u32, k: u32, jump_false: usize| libc::sock_filter {
        code: op as u16,
        jt: 0,
        jf: jump_false as u8,
        k,
    };
    let mut filter = Vec::new();
    for rule in rules {
        for (at, &(offset, value)) in rule.iter().enumerate() {
            let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
            filter.push(instruction(load, offset, 0));
            let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            let past_the_rule = 2 * (rule.len() - at - 1) + 1;
            filter.push(instruction(is_equal, value, past_the_rule));
        }
        let error = libc::SECCOMP_RET_ERRNO | code as u32;
        filter.push(instruction(libc::BPF_RET | libc::BPF_K, error, 0));
    }
    let allow = libc::SECCOMP_RET_ALLOW;
    filter.push(instruction(libc::BPF_RET | libc::BPF_K, allow, 0));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: these operations take integers, and the last one the address of a program whose
    // instructions live until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        let set = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program);
        assert_eq!(set, 0);
    }
}
