use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{Kept, mutations, require};
use crate::codec::Codec;
use crate::drop_reason::DropReason;
use crate::handler::{Handler, MAX_RESPONSES};
use crate::server::ServerCore;
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};

/// Checks what every service should keep, on datagrams that are made from samples: some requests,
/// as whole datagrams.
///
/// The requirements, by the names that the error gives:
///
/// - "no request makes a handler panic".
/// - "every response can be sent": none is too long, or one too many, or cannot be encoded.
/// - "responses go to the peer that asked".
/// - "a response decodes".
/// - "a response triggers no response": if the codec marks responses.
/// - "the samples are requests": so that the handler gets to see something.
///
/// ```
/// use rejoinder::testing::handler_conformance;
/// use rejoinder::bot::zurich;
/// use rejoinder::codec::Ctime;
///
/// handler_conformance(&Ctime::utc(), zurich(), &["你好吗？".as_bytes()])?;
/// # Ok::<(), rejoinder::testing::Violation>(())
/// ```
pub fn handler_conformance<C: Codec + Clone, H: Handler<C>>(
    codec: &C,
    handler: H,
    requests: &[&[u8]],
) -> Kept {
    let mut core = ServerCore::new(codec.clone(), handler);
    let samples = requests.iter().map(|request| request.to_vec());
    for (index, bytes) in samples.chain(mutations(requests)).enumerate() {
        let given = || format!("given {bytes:02x?}");
        let before = core.stats();
        let replies = answer(&mut core, &bytes)?;
        let after = core.stats();
        require(
            "no request makes a handler panic",
            after.dropped(DropReason::HandlerPanicked) == 0,
            given,
        )?;
        require(
            "every response can be sent",
            after.dropped(DropReason::ReplyFailed) == 0,
            given,
        )?;
        require(
            "the samples are requests",
            index >= requests.len()
                || after.replied + after.silent == before.replied + before.silent + 1,
            given,
        )?;
        for reply in replies {
            require(
                "a response decodes",
                codec.decode_response(&reply).is_ok(),
                || format!("{reply:02x?}, {}", given()),
            )?;
            if codec.is_response(&reply) {
                let more = answer(&mut core, &reply)?;
                require("a response triggers no response", more.is_empty(), || {
                    format!("{reply:02x?} does")
                })?;
            }
        }
    }
    Ok(())
}

fn answer<C: Codec, H: Handler<C>>(
    core: &mut ServerCore<C, H>,
    bytes: &[u8],
) -> Result<Vec<Vec<u8>>, super::Violation> {
    // A port from which a server lets itself be asked.
    let peer = SocketAddr::from(([192, 0, 2, 1], 49_152));
    let second = Duration::from_secs(946_684_800);
    let now = Timestamp::new(second, SystemTime::UNIX_EPOCH + second);
    let mut inbox = Inbox::new(1, MAX_DATAGRAM_BYTES);
    let mut outbox = Outbox::new(MAX_RESPONSES, MAX_DATAGRAM_BYTES);
    inbox.push(bytes, Meta::new(peer));
    core.handle(now, &mut inbox, &mut outbox);
    let to_asker = outbox.iter().all(|reply| reply.peer == peer);
    require("responses go to the peer that asked", to_asker, || {
        format!("{outbox:?}")
    })?;
    Ok(outbox.iter().map(|reply| reply.bytes.to_vec()).collect())
}
