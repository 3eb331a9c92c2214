//! The system calls of the fast path: the one place with unsafe code.
//!
//! Nothing here keeps a pointer beyond the call that it was made for: headers are built on the
//! stack, from borrowed memory, each time.
#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg have no safe wrapper that reuses memory and tells all"
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

use super::wire::{CONTROL_BYTES, Control, NAME_BYTES};

/// The most messages per system call.
pub(super) const MAX_MESSAGES: usize = 128;
/// The most parts per system call, and so at least of one message: the kernel takes 1,024.
pub(super) const MAX_PARTS: usize = 256;

/// Where a message came from or goes to, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) name: [u8; NAME_BYTES],
    pub(super) name_len: usize,
    pub(super) control: Control,
    pub(super) control_len: usize,
    /// Received only: the length of the payload and the flags.
    pub(super) len: usize,
    pub(super) flags: i32,
}

impl Envelope {
    pub(super) const EMPTY: Self = Self {
        name: [0; NAME_BYTES],
        name_len: 0,
        control: Control([0; CONTROL_BYTES]),
        control_len: 0,
        len: 0,
        flags: 0,
    };
}

/// Receives one message into each of the buffers, at most as many as there are envelopes, and
/// returns how many arrived. Waits for the first, unless told not to, as the socket's mode and
/// timeout say.
///
/// With `many`, it is one system call; without, or with a single envelope, one message is received.
pub(super) fn receive<'a>(
    socket: impl AsFd,
    buffers: impl Iterator<Item = &'a mut [u8]>,
    envelopes: &mut [Envelope],
    wait: bool,
    many: bool,
) -> io::Result<usize> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let most = if many { MAX_MESSAGES } else { 1 };
    let mut count = 0;
    for ((buffer, envelope), (part, header)) in buffers
        .zip(envelopes.iter_mut())
        .zip(parts.iter_mut().zip(headers.iter_mut()))
        .take(most)
    {
        let part = part.write(libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        });
        // SAFETY: mmsghdr is a C struct of integers and raw pointers, for which zero is valid.
        let header = header.write(unsafe { mem::zeroed() });
        header.msg_hdr.msg_name = envelope.name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = NAME_BYTES as _;
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = envelope.control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        count += 1;
    }
    let socket = socket.as_fd().as_raw_fd();
    let dont_wait = if wait { 0 } else { libc::MSG_DONTWAIT };
    let first = headers.as_mut_ptr().cast::<libc::mmsghdr>();
    let received = match count {
        0 => 0,
        1 => {
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
    for (envelope, header) in envelopes.iter_mut().zip(&headers).take(received) {
        // SAFETY: the first `count` headers are initialised, and no more than that were received.
        let header = unsafe { header.assume_init_ref() };
        envelope.len = header.msg_len as usize;
        envelope.name_len = (header.msg_hdr.msg_namelen as usize).min(NAME_BYTES);
        #[allow(clippy::unnecessary_cast, reason = "a size_t in glibc, less in musl")]
        let control_len = header.msg_hdr.msg_controllen as usize;
        envelope.control_len = control_len.min(CONTROL_BYTES);
        envelope.flags = header.msg_hdr.msg_flags;
    }
    Ok(received)
}

/// Sends the first messages: each is the concatenation of its parts, which are ranges of the arena,
/// and goes where its envelope says. Returns how many were sent, of at most
/// [`MAX_MESSAGES`] with [`MAX_PARTS`] in all; an error is the first one's.
///
/// With `many`, it is one system call; without, one message is sent.
pub(super) fn send<'a>(
    socket: impl AsFd,
    arena: &[u8],
    messages: impl Iterator<Item = (&'a Envelope, &'a [Range<usize>])>,
    many: bool,
) -> io::Result<usize> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_PARTS];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_MESSAGES];
    let mut spare = &mut parts[..];
    let most = if many { MAX_MESSAGES } else { 1 };
    let mut count = 0;
    for ((envelope, ranges), header) in messages.zip(&mut headers).take(most) {
        let Some((mine, others)) = spare.split_at_mut_checked(ranges.len()) else {
            break;
        };
        spare = others;
        for (part, range) in mine.iter_mut().zip(ranges) {
            let bytes = &arena[range.clone()];
            part.write(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        // SAFETY: mmsghdr is a C struct of integers and raw pointers, for which zero is valid.
        let header = header.write(unsafe { mem::zeroed() });
        if envelope.name_len > 0 {
            let name = &envelope.name[..envelope.name_len];
            header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = name.len() as _;
        }
        header.msg_hdr.msg_iov = mine.as_mut_ptr().cast();
        header.msg_hdr.msg_iovlen = ranges.len() as _;
        if envelope.control_len > 0 {
            let control = &envelope.control.0[..envelope.control_len];
            header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = control.len() as _;
        }
        count += 1;
    }
    let socket = socket.as_fd().as_raw_fd();
    let first = headers.as_mut_ptr().cast::<libc::mmsghdr>();
    match count {
        0 => Ok(0),
        1 => {
            // SAFETY: one header was initialised above, and as many parts as it says. What they
            // point to is borrowed until this function returns, has the stated lengths, and is only
            // read.
            let sent = unsafe { libc::sendmsg(socket, &raw const (*first).msg_hdr, 0) };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(1)
        }
        _ => {
            // SAFETY: `count` headers were initialised above, and as many parts as they say. What
            // they point to is borrowed until this function returns, has the stated lengths, and is
            // only read; the kernel writes `msg_len` of the headers, which are exclusively ours.
            let sent = unsafe { libc::sendmmsg(socket, first, count as _, 0) };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        }
    }
}

/// Whether the system has `recvmmsg` and `sendmmsg` and lets this process call them: asked by
/// moving no message at all.
pub(super) fn has_mmsg(socket: impl AsFd) -> (bool, bool) {
    let socket = socket.as_fd().as_raw_fd();
    let refused = |result: i32| {
        result < 0
            && io::Error::last_os_error()
                .raw_os_error()
                .is_some_and(|code| REFUSALS.contains(&code))
    };
    // SAFETY: with a length of 0 the array is not looked at.
    let receive = unsafe { libc::recvmmsg(socket, ptr::null_mut(), 0, 0, ptr::null_mut()) };
    let receive = !refused(receive);
    // SAFETY: with a length of 0 the array is not looked at.
    let send = unsafe { libc::sendmmsg(socket, ptr::null_mut(), 0, 0) };
    (receive, !refused(send))
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
/// How an old kernel, or a filter of system calls, says no.
pub(super) const REFUSALS: [i32; 3] = [libc::ENOSYS, libc::EPERM, libc::EACCES];
