use std::io;
use std::time::{Duration, SystemTime};

use crate::codec::Text;
use crate::transport::{Inbox, Meta, Outbox, SendReport};
use crate::{Client, Timestamp};

#[test]
fn the_next_request_of_a_slot_uses_its_buffers_again() -> io::Result<()> {
    let server = ([192, 0, 2, 1], 7).into();
    let core = Client::builder(Text).window(1).core(server);
    let mut core = core.map_err(io::Error::other)?;
    let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
    let (mut inbox, mut outbox) = (Inbox::new(1, 512), Outbox::new(1, 512));
    core.submit(now, "question", &mut || Ok(0))
        .map_err(io::Error::other)?;
    let socket = core.poll_send(now, &mut outbox).expect("it is due");
    core.on_sent(now, &SendReport::accepted(1));
    inbox.push(b"answer", Meta::new(server));
    core.on_receive(now, socket, &mut inbox);
    assert!(core.poll_result().is_some_and(|(_, result)| result.is_ok()));

    // As if the response had been one of three datagrams.
    let slot = &mut core.slots[0];
    slot.parts.add(&mut Vec::new(), (0, 3), b"part", (3, 100));
    let buffers = |slot: &super::Slot| {
        (
            (slot.request.as_ptr(), slot.response.as_ptr()),
            (slot.routes.as_ptr(), slot.parts.capacity()),
        )
    };
    let before = buffers(slot);
    core.submit(now, "another", &mut || Ok(0))
        .map_err(io::Error::other)?;
    assert_eq!(core.slots.len(), 1);
    assert_eq!(buffers(&core.slots[0]), before);
    Ok(())
}
