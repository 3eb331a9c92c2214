//! What the standard library has not: processors, priorities, and the bare system calls.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// Keeps this thread, and those that it will start, on these processors.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t is plain bits, and its size is passed.
    let result = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Says that this thread works in batches, so that one that it wakes does not push it aside.
pub fn work_in_batches() -> io::Result<()> {
    // SAFETY: a sched_param is plain numbers, and zero is the one priority there is.
    let result = unsafe {
        let none: libc::sched_param = zeroed();
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &none)
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Ends this process with the one that started it.
pub fn end_with_parent() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn set(socket: &UdpSocket, level: i32, name: i32) {
    let one = 1_i32;
    // SAFETY: the value is an int, and its size is passed.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const one).cast(), 4) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

const MESSAGES: usize = 64;
const BUFFER_BYTES: usize = 65_536;
const SEGMENTS: usize = 64;
const ANSWER_BYTES: usize = 1_024;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

struct Answer {
    start: usize,
    len: usize,
    next: u32,
}

struct Group {
    peer: u64,
    first: u32,
    last: u32,
}

/// The floor: the system calls that the fast path makes too, for IPv4 on one address, with nothing
/// around them: no limits, no counters, no errors, no traits.
///
/// `begin` is called once per batch, `answer` with each request and the space for the answer.
pub fn bare_loop(
    socket: &UdpSocket,
    mut begin: impl FnMut(),
    mut answer: impl FnMut(&[u8], &mut [u8]) -> usize,
) -> ! {
    set(socket, libc::SOL_UDP, libc::UDP_GRO);
    let fd = socket.as_raw_fd();
    let mut buffers = vec![0_u8; MESSAGES * BUFFER_BYTES];
    let mut controls = vec![Control([0; 64]); MESSAGES];
    // SAFETY: these C structs are integers and raw pointers, for which zero is valid.
    let (mut names, mut headers, mut out_headers) = unsafe {
        (
            vec![zeroed::<libc::sockaddr_in>(); MESSAGES],
            vec![zeroed::<libc::mmsghdr>(); MESSAGES],
            vec![zeroed::<libc::mmsghdr>(); 1_024],
        )
    };
    let mut parts: Vec<libc::iovec> = (0..MESSAGES)
        .map(|index| libc::iovec {
            iov_base: buffers[index * BUFFER_BYTES..].as_mut_ptr().cast(),
            iov_len: BUFFER_BYTES,
        })
        .collect();
    for index in 0..MESSAGES {
        let header = &mut headers[index].msg_hdr;
        header.msg_name = (&raw mut names[index]).cast();
        header.msg_iov = &mut parts[index];
        header.msg_iovlen = 1;
        header.msg_control = controls[index].0.as_mut_ptr().cast();
    }
    let mut arena = vec![0_u8; MESSAGES * 128 * ANSWER_BYTES];
    let mut answers: Vec<Answer> = Vec::with_capacity(8_192);
    let mut groups: Vec<Group> = Vec::with_capacity(256);
    let mut table = [(0_u32, 0_u32); 256];
    let mut out_names: Vec<libc::sockaddr_in> = Vec::with_capacity(8_192);
    let mut out_controls: Vec<Control> = Vec::with_capacity(8_192);
    let mut out_parts: Vec<libc::iovec> = Vec::with_capacity(8_192);
    let mut stamp = 0;
    let mut latest = 1;
    loop {
        let most = (2 * latest).clamp(4_usize, MESSAGES);
        for header in &mut headers[..most] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_hdr.msg_controllen = 64;
        }
        // SAFETY: the headers lead to vectors that live as long as this loop and do not move.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                most as u32,
                libc::MSG_WAITFORONE,
                null_mut(),
            )
        };
        let Ok(received @ 1..) = usize::try_from(received) else {
            continue;
        };
        latest = received;
        begin();
        let mut used = 0;
        answers.clear();
        groups.clear();
        stamp += 1;
        for index in 0..received {
            let name = &names[index];
            let peer = u64::from(name.sin_addr.s_addr) << 16 | u64::from(name.sin_port);
            let mut slot = (peer.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize;
            let group = loop {
                let (seen, group) = table[slot];
                if seen != stamp {
                    let group = groups.len() as u32;
                    groups.push(Group {
                        peer,
                        first: NONE,
                        last: NONE,
                    });
                    table[slot] = (stamp, group);
                    break &mut groups[group as usize];
                }
                if groups[group as usize].peer == peer {
                    break &mut groups[group as usize];
                }
                slot = (slot + 1) % 256;
            };
            let len = headers[index].msg_len as usize;
            let bytes = &buffers[index * BUFFER_BYTES..][..len];
            let segment = segment_bytes(&controls[index].0, headers[index].msg_hdr.msg_controllen);
            for request in bytes.chunks(segment.unwrap_or(len).max(1)) {
                let len = answer(request, &mut arena[used..used + ANSWER_BYTES]);
                let number = answers.len() as u32;
                answers.push(Answer {
                    start: used,
                    len,
                    next: NONE,
                });
                used += len;
                if group.first == NONE {
                    group.first = number;
                } else {
                    answers[group.last as usize].next = number;
                }
                group.last = number;
            }
        }
        out_names.clear();
        out_controls.clear();
        out_parts.clear();
        let mut messages = 0;
        for group in &groups {
            let mut next = group.first;
            while next != NONE {
                let first = &answers[next as usize];
                let part = out_parts.len();
                let (mut count, mut total, mut end) = (0, 0, usize::MAX);
                loop {
                    let one = &answers[next as usize];
                    if one.start == end {
                        out_parts.last_mut().expect("there is one").iov_len += one.len;
                    } else {
                        out_parts.push(libc::iovec {
                            iov_base: arena[one.start..].as_ptr().cast_mut().cast(),
                            iov_len: one.len,
                        });
                    }
                    end = one.start + one.len;
                    count += 1;
                    total += one.len;
                    next = one.next;
                    if next == NONE || one.len < first.len || count == SEGMENTS {
                        break;
                    }
                    let len = answers[next as usize].len;
                    if len > first.len || total + len > 65_507 {
                        break;
                    }
                }
                // SAFETY: zero is a valid sockaddr_in.
                let mut name: libc::sockaddr_in = unsafe { zeroed() };
                name.sin_family = libc::AF_INET as u16;
                name.sin_addr.s_addr = (group.peer >> 16) as u32;
                name.sin_port = group.peer as u16;
                out_names.push(name);
                let mut control = Control([0; 64]);
                let mut control_len = 0;
                if count > 1 {
                    control.0[..8].copy_from_slice(&18_u64.to_ne_bytes());
                    control.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
                    control.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
                    control.0[16..18].copy_from_slice(&(first.len as u16).to_ne_bytes());
                    control_len = 24;
                }
                out_controls.push(control);
                if messages == out_headers.len() {
                    // SAFETY: as above.
                    out_headers.push(unsafe { zeroed() });
                }
                let header = &mut out_headers[messages].msg_hdr;
                header.msg_name = out_names.as_mut_ptr().wrapping_add(messages).cast();
                header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
                header.msg_iov = out_parts.as_mut_ptr().wrapping_add(part);
                header.msg_iovlen = out_parts.len() - part;
                header.msg_control = out_controls.as_mut_ptr().wrapping_add(messages).cast();
                header.msg_controllen = control_len;
                messages += 1;
            }
        }
        let mut sent = 0;
        while sent < messages {
            // SAFETY: the headers lead to vectors with room for all that a batch can hold (64
            // messages of 128 segments), which therefore did not move since they were filled.
            let now = unsafe {
                let first = out_headers.as_mut_ptr().add(sent);
                libc::sendmmsg(fd, first, (messages - sent).min(1_024) as u32, 0)
            };
            sent += usize::try_from(now).unwrap_or(1);
        }
    }
}

fn segment_bytes(control: &[u8], len: usize) -> Option<usize> {
    let number = |at: usize| {
        Some(i32::from_ne_bytes(
            *control[..len].get(at..)?.first_chunk()?,
        ))
    };
    (number(8)? == libc::SOL_UDP && number(12)? == libc::UDP_GRO).then_some(())?;
    usize::try_from(number(16)?).ok()
}
